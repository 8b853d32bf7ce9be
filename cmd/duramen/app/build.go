package app

import (
	"runtime"

	"github.com/duramendb/duramen/internal/buildinfo"
	"github.com/duramendb/duramen/querier"
)

// apiBuildInfo is what status/buildinfo answers: clients read the version as Prometheus' to know what they may ask.
func apiBuildInfo(b buildinfo.Info) querier.BuildInfo {
	return querier.BuildInfo{
		Version: b.Prometheus, Revision: b.Revision, Branch: "duramen-" + b.Version, BuildUser: "duramen",
		BuildDate: b.Date, GoVersion: runtime.Version(),
	}
}
