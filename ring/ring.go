package ring

import (
	"cmp"
	"slices"
	"time"
)

// Ring is the cluster as one process sees it at one moment. It never changes and is safe for concurrent use.
type Ring struct {
	cfg     Config
	now     time.Time
	entries []Entry
	members []Member // of all entries that are members, by ID
	layout  *layout
}

// New computes the ring of a table's entries. It costs no more than sorting them: replica sets are computed when they
// are first asked for.
func New(cfg Config, entries []Entry, now time.Time) *Ring {
	return build(cfg.withDefaults(), entries, now, nil)
}

// Next is New for a table that has changed since r, with the same settings. Replica sets are kept when the placement is
// the same, which it is for all changes but those of members, states, zones and addresses.
func (r *Ring) Next(entries []Entry, now time.Time) *Ring {
	return build(r.cfg, entries, now, r.layout)
}

func build(cfg Config, entries []Entry, now time.Time, last *layout) *Ring {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.ID(), b.ID()) })
	r := &Ring{cfg: cfg, now: now, entries: entries}
	for i := range entries {
		if entries[i].Forgotten == nil {
			r.members = append(r.members, entries[i].Member)
		}
	}
	r.layout = newLayout(cfg, r.members)
	if last != nil && last.version == r.layout.version {
		r.layout = last.refreshed(r.layout.ingesters)
	}
	return r
}

// Version names the placement: rings with equal versions place every series alike and number their ingesters alike.
// Heartbeats do not change it.
func (r *Ring) Version() uint64 { return r.layout.version }

// RF is the number of copies of each series.
func (r *Ring) RF() int { return r.cfg.ReplicationFactor }

// Quorum is the number of copies without which a write is not acknowledged.
func (r *Ring) Quorum() int { return r.cfg.quorum() }

func (c Config) quorum() int { return c.ReplicationFactor/2 + 1 }

// Config returns the settings with their defaults filled in.
func (r *Ring) Config() Config { return r.cfg }

// All returns every entry, by ID. It must not be changed.
func (r *Ring) All() []Entry { return r.entries }

// Get returns the member of an ID.
func (r *Ring) Get(id string) (Member, bool) {
	i, ok := slices.BinarySearchFunc(r.members, id, func(m Member, id string) int { return cmp.Compare(m.ID, id) })
	if !ok {
		return Member{}, false
	}
	return r.members[i], true
}

// Members returns those who play a role and can be asked now: heard of within the heartbeat timeout, and neither
// starting nor leaving.
func (r *Ring) Members(role Role) []Member {
	var usable []Member
	for i := range r.members {
		if r.usable(&r.members[i], role) {
			usable = append(usable, r.members[i])
		}
	}
	return usable
}

func (r *Ring) usable(m *Member, role Role) bool {
	return m.Has(role) && (m.State == Active || m.State == ReadOnly) && r.Alive(*m, r.now)
}

// Alive reports whether the member was heard of within the heartbeat timeout, by the clock of this process.
func (r *Ring) Alive(m Member, now time.Time) bool {
	return m.State != Left && m.Seen >= now.Add(-r.cfg.HeartbeatTimeout).UnixMilli()
}

// Owner returns the one usable member of a role that a key belongs to, or false when there is none. Another member's
// coming takes only the keys that it gets.
func (r *Ring) Owner(role Role, key string) (Member, bool) {
	var best *Member
	var highest uint64
	hash := hashString(key)
	for i := range r.members {
		m := &r.members[i]
		if !r.usable(m, role) {
			continue
		}
		if score := mix(hash ^ hashString(m.ID)); best == nil || score > highest {
			best, highest = m, score
		}
	}
	if best == nil {
		return Member{}, false
	}
	return *best, true
}

// Ingesters returns all ingesters that have not left, by zone, ordinal and ID. The index of one is its slot, which is
// the same for all rings of one version. It must not be changed.
func (r *Ring) Ingesters() []Member { return r.layout.ingesters }

// Tenant returns where the series of a tenant go. shard is the number of ingesters that share them, over as many zones
// as there are copies; 0 is all.
func (r *Ring) Tenant(tenant string, shard int) *Placement { return r.layout.tenant(tenant, shard) }

// Share is the part of all series, from 0 to 1, of which the ingester gets a copy.
func (r *Ring) Share(id string) float64 { return r.layout.share(id) }
