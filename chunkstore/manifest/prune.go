package manifest

import (
	"context"
	"time"
)

const (
	// keepVersions is how many of the newest versions are never deleted.
	keepVersions = 5

	// pruneAfter is how long a version stays after the next one has replaced it. It has to be longer than any query
	// and longer than trustFor.
	pruneAfter = 2 * time.Hour
)

// prune deletes the versions that nobody can need any more. A failure is logged and counted: the next swap tries again.
func (o *Owner) prune(ctx context.Context, tenantID string, entries []entry) {
	var keys []string
	for _, version := range obsolete(entries) {
		keys = append(keys, Key(tenantID, version))
	}
	if len(keys) == 0 {
		return
	}
	if err := o.bkt.Delete(ctx, keys...); err != nil {
		o.metrics.pruneFailed.Inc()
		o.log.Warn("old manifest versions were not deleted", "tenant", tenantID, "versions", len(keys), "err", err)
	}
}

// obsolete picks the versions to delete from an ascending listing. All times compared are the store's, so that no
// process with a wrong clock deletes too early.
func obsolete(entries []entry) []uint64 {
	var versions []uint64
	for i := range max(0, len(entries)-keepVersions) {
		replaced := entries[i+1].written
		if entries[len(entries)-1].written.Sub(replaced) >= pruneAfter {
			versions = append(versions, entries[i].version)
		}
	}
	return versions
}
