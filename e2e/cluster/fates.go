package cluster

import (
	"sync"

	"github.com/duramendb/duramen/internal/loadledger"
)

// fates remembers what became of each request of one tenant. It is safe for concurrent use.
type fates struct {
	mu sync.RWMutex
	by [][]loadledger.Fate // by chunk, by scrape
}

func newFates(chunks, scrapes int) *fates {
	f := &fates{by: make([][]loadledger.Fate, chunks)}
	for i := range f.by {
		f.by[i] = make([]loadledger.Fate, scrapes)
	}
	return f
}

// Fate implements loadverify.Fates.
func (f *fates) Fate(_, chunk, scrape int) loadledger.Fate {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.by[chunk][scrape]
}

func (f *fates) set(chunk, scrape int, fate loadledger.Fate) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.by[chunk][scrape] = fate
}

// count returns how many requests have a fate.
func (f *fates) count(fate loadledger.Fate) int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	n := 0
	for _, scrapes := range f.by {
		for _, got := range scrapes {
			if got == fate {
				n++
			}
		}
	}
	return n
}
