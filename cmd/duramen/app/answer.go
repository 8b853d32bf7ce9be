package app

import (
	"fmt"
	"io"
	"log/slog"

	"go.yaml.in/yaml/v3"

	"github.com/duramendb/duramen/internal/buildinfo"
	"github.com/duramendb/duramen/tenant"
)

// Answer carries out every action but Run.
func Answer(cmd *Command, stdout io.Writer) error {
	switch cmd.Action {
	case Help:
		return WriteHelp(stdout)
	case Version:
		_, err := fmt.Fprintln(stdout, buildinfo.Read().Line("duramen"))
		return err
	case Reference:
		return WriteReference(stdout)
	case MetricsReference:
		return WriteMetricsReference(stdout)
	case Print:
		return writeConfig(stdout, cmd.Config)
	case Check:
		return check(cmd.Config, stdout)
	default:
		return fmt.Errorf("action %q is not answered here", cmd.Action)
	}
}

// check goes one step further than Validate, which reads no disk: the files that the settings name are read.
func check(cfg Config, stdout io.Writer) error {
	if err := cfg.checkFiles(); err != nil {
		return err
	}
	limits, err := tenant.NewLimits(cfg.Limits, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return err
	}
	if err := limits.Reload(); err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, "the settings are right")
	return err
}

// writeConfig writes cfg as a configuration file. Secrets are of a type that does not show itself.
func writeConfig(w io.Writer, cfg Config) error {
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(cfg); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return e.Close()
}
