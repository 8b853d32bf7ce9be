package ingestrpc

import (
	"sync"
	"time"

	"github.com/duramendb/duramen/internal/errkind"
)

// readRetryAfter is what a refused reader is told to wait: reads end within seconds as a rule.
const readRetryAfter = time.Second

// gate bounds the reads that are answered at a time, so that many of one tenant leave room for others. Safe for
// concurrent use.
type gate struct {
	most, mostOfOne int

	mu       sync.Mutex
	open     int
	byTenant map[string]int
}

func newGate(most int) *gate {
	return &gate{most: most, mostOfOne: max(1, most-most/4), byTenant: map[string]int{}}
}

// enter takes a place, which leave gives back. An error is of kind Limited.
func (g *gate) enter(tenantID string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	mine := g.byTenant[tenantID]
	if g.open >= g.most || mine >= g.mostOfOne {
		return &errkind.Error{Kind: errkind.Limited, RetryAfter: readRetryAfter, Err: &crowdedError{g.open, g.most, mine}}
	}
	g.open++
	g.byTenant[tenantID] = mine + 1
	return nil
}

func (g *gate) leave(tenantID string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	if g.byTenant[tenantID]--; g.byTenant[tenantID] == 0 {
		delete(g.byTenant, tenantID)
	}
}
