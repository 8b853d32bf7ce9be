package querier

import (
	"math"
	"sync"

	"github.com/prometheus/prometheus/storage"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tombstone"
)

// retained returns the time from which on a tenant's samples are shown, in milliseconds since the Unix epoch.
func (q *Querier) retained(tenantID string) int64 {
	period := q.limits.RetentionPeriod(tenantID)
	if period <= 0 {
		return math.MinInt64
	}
	return q.now().UnixMilli() - period.Milliseconds()
}

// within narrows hints, which may be nil, to what is retained: in a TSDB they decide what is read, and not the querier's
// own range. some is not set when nothing is left.
func (t *tiers[Q]) within(hints *storage.SelectHints) (narrowed *storage.SelectHints, some bool) {
	if hints == nil || t.retained == math.MinInt64 {
		return hints, true
	}
	h := *hints
	h.Start, h.DisableTrimming = max(h.Start, t.retained), false
	return &h, h.Start <= h.End
}

// hidden returns the deletions of a manifest of times that touch mint ≤ t ≤ maxt.
func (q *Querier) hidden(m *manifest.Manifest, mint, maxt int64) (*tombstone.Set, error) {
	if len(m.Deletions) == 0 {
		return nil, nil
	}
	set, err := q.hides.of(m)
	return set.In(mint, maxt), err
}

// mostHides bounds the sets that are kept.
const mostHides = 1000

// hides keeps the sets of the deletions of manifests, whose selectors take a while to parse.
type hides struct {
	mu       sync.Mutex
	byTenant map[string]hide
}

type hide struct {
	of  *manifest.Manifest
	set *tombstone.Set
}

func newHides() *hides { return &hides{byTenant: map[string]hide{}} }

// of returns the set of all deletions of a manifest, which does not change.
func (h *hides) of(m *manifest.Manifest) (*tombstone.Set, error) {
	h.mu.Lock()
	known, ok := h.byTenant[m.Tenant]
	h.mu.Unlock()
	if ok && known.of == m {
		return known.set, nil
	}
	set, err := tombstone.New(m.Deletions)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.byTenant) >= mostHides && !ok {
		clear(h.byTenant) // rare, and cheap to fill again
	}
	h.byTenant[m.Tenant] = hide{m, set}
	return set, nil
}
