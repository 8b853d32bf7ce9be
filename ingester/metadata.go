package ingester

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/duramendb/duramen/duramenpb"
)

const (
	// descriptionsPerFamily bounds what one metric family may be described as at a time. Targets of several versions
	// describe it differently; Prometheus returns each, so a few are kept.
	descriptionsPerFamily = 4
	// descriptionLife is how long a description that nobody repeats stands beside one that came later. Remote write 1.0
	// repeats everything every minute; 2.0 does not, and its latest stays for as long as nothing else comes.
	descriptionLife = time.Hour
)

// metadataStore keeps the latest metadata of a tenant's metric families, in memory only: it is not covered by the promise
// that what was acknowledged is kept. A restart or the closing of the tenant forgets it until senders repeat it, which
// they do every minute or, in remote write 2.0, with the next sample of each series.
type metadataStore struct {
	mu       sync.Mutex
	families map[string][]description
}

// description is one metadata of a family, and when it was told last, in milliseconds since the Unix epoch.
type description struct {
	duramenpb.Metadata
	told int64
}

func newMetadataStore() *metadataStore { return &metadataStore{} }

// put remembers ms and returns how many found no room because limit families are known. Strings are kept, so they must
// not view a request's buffer.
func (s *metadataStore) put(ms []duramenpb.Metadata, limit int, now time.Time) (dropped int) {
	if len(ms) == 0 {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.families == nil {
		s.families = make(map[string][]description, min(len(ms), limit))
	}
	for _, m := range ms {
		known := s.families[m.Family]
		if known == nil && len(s.families) >= limit {
			dropped++
			continue
		}
		s.families[m.Family] = tell(known, description{m, now.UnixMilli()})
	}
	return dropped
}

// tell puts d in front of what is known of its family and drops what is repeated no more.
func tell(known []description, d description) []description {
	if len(known) == 1 && known[0].Metadata == d.Metadata { // nearly always
		known[0].told = d.told
		return known
	}
	known = slices.DeleteFunc(known, func(old description) bool {
		return old.Metadata == d.Metadata || old.told < d.told-descriptionLife.Milliseconds()
	})
	known = slices.Insert(known, 0, d)
	return known[:min(len(known), descriptionsPerFamily)]
}

// list returns what is known of one family or, when it is empty, of all of them by name; of each the latest first.
func (s *metadataStore) list(family string) []duramenpb.Metadata {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := []string{family}
	if family == "" {
		names = make([]string, 0, len(s.families))
		for name := range s.families {
			names = append(names, name)
		}
		slices.SortFunc(names, cmp.Compare)
	}
	out := make([]duramenpb.Metadata, 0, len(names))
	for _, name := range names {
		for _, d := range s.families[name] {
			out = append(out, d.Metadata)
		}
	}
	return out
}

func (s *metadataStore) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.families = nil
}

// Metadata returns the metadata of a tenant's metric family or, when it is empty, of all of them by name. Of each family
// the one that was told last comes first. It is what senders told since the tenant was opened, and opens no tenant.
//
// Kinds of errors: Unavailable while starting or stopping.
func (i *Ingester) Metadata(_ context.Context, tenantID, family string) ([]duramenpb.Metadata, error) {
	if err := i.serving(); err != nil {
		return nil, err
	}
	if err := i.dooms.refuse(tenantID); err != nil {
		return nil, err
	}
	t, err := i.tenants.get(tenantID, false)
	if err != nil || t == nil {
		return nil, err
	}
	return t.metadata.list(family), nil
}
