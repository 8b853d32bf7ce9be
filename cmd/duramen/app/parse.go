package app

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/duramendb/duramen/internal/listflag"
	"github.com/duramendb/duramen/internal/strictyaml"
)

// Action is what the command line asks for.
type Action string

// The actions. All but Run answer and end.
const (
	Run              Action = "run"
	Help             Action = "help"
	Version          Action = "version"
	Check            Action = "check"
	Print            Action = "print"
	Reference        Action = "reference"
	MetricsReference Action = "metrics"
)

// Command is a parsed command line: what to do, with which settings.
type Command struct {
	Action Action
	Config Config
}

const envPrefix = "DURAMEN_"

// envName is the environment variable that stands for a flag.
func envName(flagName string) string {
	return envPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(flagName))
}

// layers holds a Config and the flags bound to it.
type layers struct {
	cfg        Config
	flags      *flag.FlagSet
	configFile string

	help, version, check, print, reference, metrics bool
}

func newLayers() *layers {
	l := &layers{flags: flag.NewFlagSet("duramen", flag.ContinueOnError)}
	f := l.flags
	l.cfg.RegisterFlags(f)
	f.StringVar(&l.configFile, "config.file", "", "YAML file with settings. Environment and flags go before it.")
	f.BoolVar(&l.check, "config.check", false, "Check the settings and the files that they name, say what is wrong, and end.")
	f.BoolVar(&l.print, "config.print", false, "Print the settings in force as a configuration file, and end.")
	f.BoolVar(&l.reference, "config.reference", false, "Print the configuration reference in Markdown, and end.")
	f.BoolVar(&l.metrics, "metrics.reference", false, "Print the metrics reference in Markdown, and end.")
	f.BoolVar(&l.version, "version", false, "Print the version, and end.")
	f.BoolVar(&l.help, "h", false, "Print this help, and end.")
	f.BoolVar(&l.help, "help", false, "Print this help, and end.")
	return l
}

// notSettings are the flags that ask for an action; they have no environment variable and no place in the file.
func notSettings() []string {
	return []string{"config.check", "config.print", "config.reference", "metrics.reference", "version", "h", "help"}
}

// Parse reads the settings: defaults, then the file, then the environment (as of os.Environ), then args (without the
// program's name), each going before the one before it. It returns all faults of the first layer that has any, or those
// of validation, each with the setting, the value and what would be right.
func Parse(args, environ []string) (*Command, error) {
	l := newLayers()
	// The flags and the environment say where the file is, and go before it: they are read twice.
	if err := l.applyArgs(args); err != nil {
		return nil, err
	}
	action := l.action()
	if action == Help || action == Version || action == Reference || action == MetricsReference {
		return &Command{Action: action, Config: DefaultConfig()}, nil
	}
	file := l.configFile
	if file == "" {
		file = envValue(environ, envName("config.file"))
	}
	l = newLayers()
	if err := l.applyFile(file); err != nil {
		return nil, err
	}
	if err := l.applyEnvironment(environ); err != nil {
		return nil, err
	}
	if err := l.applyArgs(args); err != nil {
		return nil, err
	}
	if err := l.cfg.Validate(); err != nil {
		return nil, err
	}
	return &Command{Action: action, Config: l.cfg}, nil
}

func (l *layers) action() Action {
	switch {
	case l.help:
		return Help
	case l.version:
		return Version
	case l.reference:
		return Reference
	case l.metrics:
		return MetricsReference
	case l.check:
		return Check
	case l.print:
		return Print
	default:
		return Run
	}
}

func (l *layers) applyFile(name string) error {
	if name == "" {
		return nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("config.file: %w", err)
	}
	if err := strictyaml.Decode(data, &l.cfg); err != nil {
		return fmt.Errorf("config.file %s: %w", name, err)
	}
	return nil
}

// serviceLink matches the variables that Kubernetes puts into the pods beside a Service named duramen or duramen-….
var serviceLink = regexp.MustCompile(`^DURAMEN_(.+_)?(SERVICE_(HOST|PORT)|PORT)(_.+)?$`)

func (l *layers) applyEnvironment(environ []string) error {
	l.nextLayer()
	known := map[string]string{}
	var names []string
	l.flags.VisitAll(func(f *flag.Flag) {
		if !slices.Contains(notSettings(), f.Name) {
			known[envName(f.Name)] = f.Name
			names = append(names, envName(f.Name))
		}
	})
	var errs []error
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, envPrefix) || value == "" {
			continue
		}
		flagName, ok := known[name]
		switch {
		case ok:
			errs = append(errs, l.set(flagName, value, name))
		case serviceLink.MatchString(name):
		default:
			errs = append(errs, fmt.Errorf("%s: unknown environment variable; %s", name, didYouMean("", name, names)))
		}
	}
	return errors.Join(errs...)
}

func (l *layers) applyArgs(args []string) error {
	l.nextLayer()
	var errs []error
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		name, isFlag := strings.CutPrefix(arg, "-")
		if name = strings.TrimPrefix(name, "-"); !isFlag || name == "" {
			err := fmt.Errorf("unexpected argument %q; settings are flags, such as -data-dir=./data", arg)
			return errors.Join(append(errs, err)...)
		}
		name, value, hasValue := strings.Cut(name, "=")
		f := l.flags.Lookup(name)
		switch {
		case f == nil:
			errs = append(errs, fmt.Errorf("-%s: unknown flag; %s", name, didYouMean("-", name, l.flagNames())))
			if !hasValue && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
				args = args[1:] // most likely its value
			}
			continue
		case hasValue:
		case isBool(f):
			value = "true"
		case len(args) == 0:
			errs = append(errs, fmt.Errorf("-%s: a value is missing; use %s", name, expects(f)))
			continue
		default:
			value, args = args[0], args[1:]
		}
		errs = append(errs, l.set(name, value, "-"+name))
	}
	return errors.Join(errs...)
}

// set gives a flag its value; source is how the reader knows the setting.
func (l *layers) set(name, value, source string) error {
	if err := l.flags.Set(name, value); err != nil {
		return fmt.Errorf("%s is %q; use %s", source, value, expects(l.flags.Lookup(name)))
	}
	return nil
}

func (l *layers) nextLayer() {
	l.flags.VisitAll(func(f *flag.Flag) {
		if v, ok := f.Value.(*listflag.Value); ok {
			v.NextLayer()
		}
	})
}

func (l *layers) flagNames() []string {
	var names []string
	l.flags.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	return names
}

func didYouMean(prefix, wrong string, names []string) string {
	if near := strictyaml.Nearest(wrong, names); near != "" {
		return fmt.Sprintf("did you mean %s%s?", prefix, near)
	}
	return "duramen -h lists all settings"
}

func isBool(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// expects says in words what a flag's value looks like.
func expects(f *flag.Flag) string {
	getter, ok := f.Value.(flag.Getter)
	if !ok {
		return "a text"
	}
	switch getter.Get().(type) {
	case bool:
		return "true or false"
	case autoBool:
		return "true, false or auto"
	case time.Duration:
		return "a duration such as 30s, 5m or 3h"
	case int, int64:
		return "a whole number"
	case uint, uint64:
		return "a whole number that is not negative"
	case float64:
		return "a number"
	default:
		return "a text"
	}
}

func envValue(environ []string, name string) string {
	for _, variable := range environ {
		if value, ok := strings.CutPrefix(variable, name+"="); ok {
			return value
		}
	}
	return ""
}
