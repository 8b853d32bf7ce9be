package app

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/duramendb/duramen/querier"
)

// build is what the Go toolchain recorded in the binary.
type build struct {
	version, revision, date string
	prometheus              string // version of the Prometheus module that is built in
}

const prometheusModule = "github.com/prometheus/prometheus"

func readBuild() build {
	b := build{version: "(devel)", revision: "unknown", date: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.revision = s.Value
		case "vcs.time":
			b.date = s.Value
		}
	}
	for _, m := range info.Deps {
		if m.Path == prometheusModule {
			b.prometheus = m.Version
		}
	}
	return b
}

// String is what -version prints.
func (b build) String() string {
	return fmt.Sprintf("duramen %s (revision %s, %s, %s/%s, Prometheus %s)", b.version, b.revision, runtime.Version(),
		runtime.GOOS, runtime.GOARCH, prometheusRelease(b.prometheus))
}

// apiBuildInfo is what status/buildinfo answers: clients read the version as Prometheus' to know what they may ask.
func (b build) apiBuildInfo() querier.BuildInfo {
	return querier.BuildInfo{
		Version: prometheusRelease(b.prometheus), Revision: b.revision, Branch: "duramen-" + b.version, BuildUser: "duramen",
		BuildDate: b.date, GoVersion: runtime.Version(),
	}
}

// prometheusRelease turns the module's version into the release that it belongs to: v0.315.0 is 3.15.0.
func prometheusRelease(module string) string {
	minor, patch, _ := strings.Cut(strings.TrimPrefix(module, "v0."), ".")
	n, err := strconv.Atoi(minor)
	if err != nil || n < 100 {
		return "3.0.0"
	}
	return fmt.Sprintf("%d.%d.%s", n/100, n%100, patch)
}
