package ingester

import (
	"cmp"
	"slices"
	"sync"

	"github.com/duramendb/duramen/duramenpb"
)

// metadataStore keeps the latest metadata of a tenant's metric families, in memory only: it is not covered by the promise
// that what was acknowledged is kept, and a restart forgets it until senders repeat it, which they do every minute.
type metadataStore struct {
	mu       sync.Mutex
	families map[string]duramenpb.Metadata
}

func newMetadataStore() *metadataStore { return &metadataStore{} }

// put remembers ms and returns how many new families found no room under limit. Strings are kept, so they must not view a
// request's buffer.
func (s *metadataStore) put(ms []duramenpb.Metadata, limit int) (dropped int) {
	if len(ms) == 0 {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.families == nil {
		s.families = make(map[string]duramenpb.Metadata, min(len(ms), limit))
	}
	for _, m := range ms {
		if _, ok := s.families[m.Family]; !ok && len(s.families) >= limit {
			dropped++
			continue
		}
		s.families[m.Family] = m
	}
	return dropped
}

// list returns all families by name.
func (s *metadataStore) list() []duramenpb.Metadata {
	s.mu.Lock()
	out := make([]duramenpb.Metadata, 0, len(s.families))
	for _, m := range s.families {
		out = append(out, m)
	}
	s.mu.Unlock()
	slices.SortFunc(out, func(a, b duramenpb.Metadata) int { return cmp.Compare(a.Family, b.Family) })
	return out
}
