package querier

import (
	"time"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tenantmark"
)

// refuseDeleted returns an error of kind Gone for a tenant that is to be deleted, as a manifest says, or what is in memory
// when the query needs none.
func (q *Querier) refuseDeleted(tenantID string, m *manifest.Manifest) error {
	if m == nil {
		m = q.versions.source.Known(tenantID)
	}
	if m == nil || !m.Deleting() {
		return nil
	}
	return tenantmark.Gone(tenantID, time.UnixMilli(m.Doomed.RequestedAt))
}
