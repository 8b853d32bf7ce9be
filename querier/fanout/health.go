package fanout

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/duramendb/duramen/ring"
)

const (
	// mostLatencies is how many are kept of a member, fewLatencies how many say something.
	mostLatencies, fewLatencies = 128, 8
	// latenciesEach is how many new ones move the estimate.
	latenciesEach = 16
	// suspectFor is how long a suspicion lasts that nobody looks into, because there are no queries.
	suspectFor = 30 * time.Second
)

// health is what this process has seen of the ingesters. It decides whom a query asks first, never what an answer needs.
// Safe for concurrent use.
type health struct {
	mu      sync.Mutex
	members map[string]*memberHealth
	ring    uint64 // version of the ring by which members were last forgotten
}

// memberHealth is guarded by health.mu.
type memberHealth struct {
	epoch     uint64
	latencies []time.Duration // of plans, the last ones
	next      int             // of latencies that is replaced next
	added     int             // latencies since p99 was computed
	p99       time.Duration
	suspect   string    // why it is, "" when it is not
	since     time.Time // when it became so
	probed    time.Time // when it was last probed
	probing   bool
}

func (k *memberHealth) suspected() bool { return k.suspect != "" && time.Since(k.probed) < suspectFor }

func newHealth() *health { return &health{members: map[string]*memberHealth{}} }

// of returns what is known of a member; a new epoch is a new process, and begins anew. The caller holds mu.
func (h *health) of(m *ring.Member) *memberHealth {
	known := h.members[m.ID]
	if known == nil || known.epoch != m.Epoch {
		known = &memberHealth{epoch: m.Epoch}
		h.members[m.ID] = known
	}
	return known
}

// forget drops those who are in the ring no more.
func (h *health) forget(r *ring.Ring) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ring == r.Version() {
		return
	}
	h.ring = r.Version()
	for id := range h.members {
		if m, ok := r.Get(id); !ok || m.State == ring.Left {
			delete(h.members, id)
		}
	}
}

// answered notes that a member has answered a plan, and how long it took.
func (h *health) answered(m *ring.Member, took time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.of(m)
	k.suspect = ""
	if len(k.latencies) < mostLatencies {
		k.latencies = append(k.latencies, took)
	} else {
		k.latencies[k.next] = took
		k.next = (k.next + 1) % mostLatencies
	}
	if k.added++; k.added >= latenciesEach || len(k.latencies) == fewLatencies {
		k.added = 0
		sorted := slices.Clone(k.latencies)
		slices.Sort(sorted)
		k.p99 = sorted[(len(sorted)*99+99)/100-1]
	}
}

// suspects notes that a member is away or slow.
func (h *health) suspects(m *ring.Member, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.of(m)
	if k.suspect == "" {
		k.since = time.Now()
	}
	k.suspect, k.probed = why, time.Now()
}

// suspect reports that a member was away or slow when it was last asked.
func (h *health) suspect(m *ring.Member) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.of(m).suspected()
}

// hedgeAfter is how long an answer of a member is waited for before another zone is asked as well.
func (h *health) hedgeAfter(m *ring.Member) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.of(m)
	if len(k.latencies) < fewLatencies {
		return maxHedge
	}
	return min(max(hedgeFactor*k.p99, minHedge), maxHedge)
}

// toProbe reports that a suspect is to be probed now; the caller does, and says with noteProbe what came of it.
func (h *health) toProbe(m *ring.Member) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.of(m)
	if k.suspect == "" || k.probing || time.Since(k.probed) < probeEvery {
		return false
	}
	k.probing, k.probed = true, time.Now()
	return true
}

func (h *health) noteProbe(m *ring.Member, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.of(m)
	k.probing = false
	if err == nil {
		k.suspect = ""
	}
}

// seenByUs is how much more it counts that this process has found a member away than that gossip says so.
const seenByUs = 1000

// suspects weighs the members of a zone that are away or slow by what is known.
func (f *Fanout) suspects(r *ring.Ring, z ring.Zone) (n int) {
	now := f.now()
	for i := range z.Members {
		switch m := &z.Members[i]; {
		case f.health.suspect(m):
			n += seenByUs
		case !r.Alive(*m, now):
			n++
		}
	}
	return n
}

// probeSuspects asks those who may be back, so that no query has to wait for the one that finds out.
func (f *Fanout) probeSuspects(r *ring.Ring, probe func(context.Context, Member) error) {
	for _, z := range r.ReadZones() {
		for i := range z.Members {
			if m := z.Members[i]; f.health.toProbe(&m) {
				f.calls.Go(func() {
					ctx, cancel := context.WithTimeoutCause(context.Background(), probeTimeout, errSilent)
					defer cancel()
					f.health.noteProbe(&m, f.probe(ctx, m, probe))
				})
			}
		}
	}
}

// probe asks a member something small. The error of one that did not answer in time says so.
func (f *Fanout) probe(ctx context.Context, m ring.Member, ask func(context.Context, Member) error) error {
	err := ask(ctx, f.members.Member(m))
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil && away(err) && !ended(err) {
		f.health.suspects(&m, err.Error())
	}
	return err
}

// Suspect is an ingester that was away or slow when it was last asked.
type Suspect struct {
	ID    string    `json:"id"`
	Zone  string    `json:"zone"`
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
}

// list returns the suspects among members.
func (h *health) list(zones []ring.Zone) (all []Suspect) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, z := range zones {
		for i := range z.Members {
			if k := h.of(&z.Members[i]); k.suspected() {
				all = append(all, Suspect{z.Members[i].ID, z.Name, k.suspect, k.since})
			}
		}
	}
	return all
}
