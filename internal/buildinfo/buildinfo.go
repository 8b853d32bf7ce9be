// Package buildinfo owns what the Go toolchain recorded in a binary: its version, its revision and the release of
// Prometheus that is built in. It takes no value from the linker's flags, so that every build says the same of itself.
// Read cmd/duramen/app next, which answers it to clients.
package buildinfo

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// Info is what a binary knows of itself.
type Info struct {
	Version, Revision, Date string
	Prometheus              string // release of Prometheus that is built in, such as 3.15.0
}

const prometheusModule = "github.com/prometheus/prometheus"

// Read returns what is recorded in the running binary.
func Read() Info {
	b := Info{Version: "(devel)", Revision: "unknown", Date: "unknown", Prometheus: release("")}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Date = s.Value
		}
	}
	for _, m := range info.Deps {
		if m.Path == prometheusModule {
			b.Prometheus = release(m.Version)
		}
	}
	return b
}

// Line is what the command of that name prints as its version.
func (b Info) Line(command string) string {
	return fmt.Sprintf("%s %s (revision %s, %s, %s/%s, Prometheus %s)", command, b.Version, b.Revision, runtime.Version(),
		runtime.GOOS, runtime.GOARCH, b.Prometheus)
}

// release turns the module's version into the release that it belongs to: v0.315.0 is 3.15.0.
func release(module string) string {
	minor, patch, _ := strings.Cut(strings.TrimPrefix(module, "v0."), ".")
	n, err := strconv.Atoi(minor)
	if err != nil || n < 100 {
		return "3.0.0"
	}
	return fmt.Sprintf("%d.%d.%s", n/100, n%100, patch)
}
