package ingester

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
)

// SyncMode says when acknowledged samples survive a power cut. A crash of the process loses nothing in either mode.
type SyncMode string

const (
	// SyncInterval syncs once a second: a power cut loses at most the last second of this replica.
	SyncInterval SyncMode = "interval"
	// SyncCommit syncs before the answer: a power cut loses nothing acknowledged.
	SyncCommit SyncMode = "commit"
)

// walSync makes logs durable.
type walSync struct {
	mode    SyncMode
	root    string
	onError func(tenantDirs []string, err error)
	log     *slog.Logger
}

// newWALSync starts nothing; run does. root is the folder that holds the tenants' folders. onError is told which tenants'
// logs can no longer be trusted (folders as given to committed): reopen them.
func newWALSync(mode SyncMode, root string, onError func(tenantDirs []string, err error), log *slog.Logger,
	reg prometheus.Registerer,
) *walSync {
	return &walSync{mode: mode, root: root, onError: onError, log: log}
}

// committed is called after each successful Commit of the tenant in tenantDir. In mode interval it notes that there is
// something to sync. In mode commit it returns when the data of that Commit is on disk; an error means that it may not
// be: answer 503 and reopen the tenant.
func (w *walSync) committed(ctx context.Context, tenantDir string) error { return nil }

// opened forgets what is known of a tenant's log files. Call it after each openTSDB, before the first Commit.
func (w *walSync) opened(tenantDir string) {}

// closed forgets the tenant.
func (w *walSync) closed(tenantDir string) {}

// run syncs once a second until ctx ends, and once more then. In mode commit it only waits.
func (w *walSync) run(ctx context.Context) error { <-ctx.Done(); return nil }
