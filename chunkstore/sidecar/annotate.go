package sidecar

import (
	"context"
	"sync"
	"time"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// annotateTimeout bounds one attempt to write sizes down. They are found again when it fails.
const annotateTimeout = 30 * time.Second

// annotations are sizes that are to be written into manifests, by tenant. What comes while a tenant's manifest is being
// written goes into the next version together.
type annotations struct {
	mu      sync.Mutex
	waiting map[string][]manifest.Annotation
	running bool
}

// annotate has the sizes written into the manifest, later: no query waits for it.
func (m *Maker) annotate(key blockKey, s block.Sidecar) {
	if m.notes == nil {
		return
	}
	a := &m.pending
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting == nil {
		a.waiting = map[string][]manifest.Annotation{}
	}
	a.waiting[key.tenant] = append(a.waiting[key.tenant], manifest.Annotation{
		ULID: key.id, SidecarBytes: s.Bytes, DirectoryBytes: s.DirectoryBytes,
	})
	if !a.running { // who calls is one of m.wg, so that Close is not waiting for nothing yet
		a.running = true
		m.wg.Go(m.annotateAll)
	}
}

// next takes the notes of one tenant, or ends the round.
func (a *annotations) next() (tenant string, notes []manifest.Annotation) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for tenant, notes = range a.waiting {
		delete(a.waiting, tenant)
		return tenant, notes
	}
	a.running = false
	return "", nil
}

func (m *Maker) annotateAll() {
	for {
		tenant, notes := m.pending.next()
		if notes == nil {
			return
		}
		ctx, cancel := context.WithTimeout(m.ctx, annotateTimeout)
		err := m.notes.Annotate(ctx, tenant, notes...)
		cancel()
		if err != nil && m.ctx.Err() == nil {
			m.metrics.notNoted.Inc()
			m.log.Warn("sizes of sidecars not written into the manifest", "tenant", tenant, "blocks", len(notes), "err", err)
		}
	}
}
