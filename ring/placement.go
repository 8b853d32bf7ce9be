package ring

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"

	"github.com/duramendb/duramen/internal/errkind"
)

const (
	// Partitions is the number of parts that a tenant's series fall into.
	Partitions = 1 << 16
	// maxOrdinal keeps a typing error from being taken for an instance.
	maxOrdinal = 1<<16 - 1
	// maxTenants bounds the placements that are remembered. One has some hundred bytes, and is computed again in
	// microseconds.
	maxTenants = 10_000
)

// Replicas are the ingesters of one partition.
type Replicas struct {
	// Members are slots, indexes into Ring.Ingesters, at most one of each zone. They must not be changed.
	Members []int32
	// Err says why there are fewer than a quorum; then nothing can be acknowledged. It is an errkind.Unavailable.
	Err error
}

// layout is who holds what: all of a ring that stays the same from one heartbeat to the next.
type layout struct {
	rf, quorum int
	version    uint64
	ingesters  []Member
	zones      []zone // with at least one placed ingester, by name
	err        error

	shared *shared
}

// shared is computed when asked for, and kept while the layout stays the same.
type shared struct {
	once   sync.Once
	table  []int32 // for each partition as many slots as there are copies
	counts []int32 // for each slot its partitions

	mtx     sync.Mutex
	tenants map[tenantKey]*Placement
}

type tenantKey struct {
	tenant string
	shard  int
}

// zone is a zone with the ingesters that new series can go to.
type zone struct {
	name   string
	hash   uint64
	places []place // that take writes, by number; in a shard what shardOf says
	all    []place // also those that take none for the time being
	core   int     // in a shard the number of its own places, before those that stand in
}

// place is one ingester's number in its zone.
type place struct {
	number   int
	hash     uint64
	slot     int32
	writable bool
}

func newLayout(cfg Config, members []Member) *layout {
	l := &layout{rf: cfg.ReplicationFactor, quorum: cfg.quorum(), shared: &shared{tenants: map[tenantKey]*Placement{}}}
	for i := range members {
		if members[i].Has(RoleIngester) && members[i].State != Left {
			l.ingesters = append(l.ingesters, members[i])
		}
	}
	slices.SortFunc(l.ingesters, func(a, b Member) int {
		return cmp.Or(cmp.Compare(zoneOf(cfg, &a), zoneOf(cfg, &b)), cmp.Compare(a.Ordinal, b.Ordinal), cmp.Compare(a.ID, b.ID))
	})
	l.version = versionOf(cfg, l.ingesters)
	l.zones = zonesOf(cfg, l.ingesters)
	if len(l.zones) < l.quorum {
		l.err = l.noQuorum(cfg)
	}
	return l
}

// zonesOf puts ingesters, which are sorted, into their places. Only zones in which somebody takes writes are among them.
func zonesOf(cfg Config, ingesters []Member) (zones []zone) {
	owners := ordinalOwners(cfg, ingesters)
	for i := range ingesters {
		m := &ingesters[i]
		if m.Ordinal < 0 || m.State == Joining && m.Fresh || owners[ordinalOf(cfg, m)] != m.ID {
			continue
		}
		name := zoneOf(cfg, m)
		if len(zones) == 0 || zones[len(zones)-1].name != name {
			zones = append(zones, zone{name: name, hash: hashString(name)})
		}
		z, number := &zones[len(zones)-1], placeOf(cfg, m)
		p := place{number: number, hash: placeHash(number), slot: int32(i), writable: m.Writable()} //nolint:gosec // few
		z.all = append(z.all, p)
		if p.writable {
			z.places = append(z.places, p)
		}
	}
	return slices.DeleteFunc(zones, func(z zone) bool { return len(z.places) == 0 })
}

// refreshed is the layout with the members' newest words, for a ring of the same version.
func (l *layout) refreshed(ingesters []Member) *layout {
	next := *l
	next.ingesters = ingesters
	return &next
}

// ordinal is a place that only one ingester can have.
type ordinal struct {
	zone   string
	number int
}

func ordinalOf(cfg Config, m *Member) ordinal {
	return ordinal{zone: zoneOf(cfg, m), number: placeOf(cfg, m)}
}

// ordinalOwners names for each ordinal the ingester that has it: the one whose storage registered first.
func ordinalOwners(cfg Config, ingesters []Member) map[ordinal]string {
	owners := map[ordinal]*Member{}
	for i := range ingesters {
		m := &ingesters[i]
		if m.Ordinal < 0 || m.State == Left {
			continue
		}
		o := ordinalOf(cfg, m)
		if owner := owners[o]; owner == nil || older(m, owner) {
			owners[o] = m
		}
	}
	ids := make(map[ordinal]string, len(owners))
	for o, m := range owners {
		ids[o] = m.ID
	}
	return ids
}

// older reports whether a keeps an ordinal that both have.
func older(a, b *Member) bool {
	if a.Registered != b.Registered {
		return a.Registered < b.Registered
	}
	return a.ID < b.ID
}

// OrdinalOwner returns the ingester that has an ordinal of a zone, or false when it is free. zone is "" when none is
// configured. Of two that claim it the one whose storage registered first has it.
func (r *Ring) OrdinalOwner(zone string, number int) (Member, bool) {
	probe := Member{Zone: zone, Ordinal: number}
	id, ok := ordinalOwners(r.cfg, r.layout.ingesters)[ordinalOf(r.cfg, &probe)]
	if !ok {
		return Member{}, false
	}
	return r.Get(id)
}

// versionOf hashes what placement and the users of slots depend on.
func versionOf(cfg Config, ingesters []Member) uint64 {
	h := fnv.New64a()
	var buf []byte
	for i := range ingesters {
		m := &ingesters[i]
		buf = buf[:0]
		for _, s := range []string{m.ID, m.Zone, m.StorageID, m.Address, m.HTTPAddress} {
			buf = append(binary.AppendUvarint(buf, uint64(len(s))), s...)
		}
		buf = binary.AppendVarint(buf, int64(m.Ordinal))
		buf = binary.AppendVarint(buf, m.Registered)
		buf = binary.AppendUvarint(buf, m.Epoch)
		buf = append(buf, byte(m.State))
		h.Write(buf)
	}
	return mix(h.Sum64() + uint64(cfg.ReplicationFactor)) //nolint:gosec // positive
}

// noQuorum says why there are not enough zones to write to.
func (l *layout) noQuorum(cfg Config) error {
	var have, others []string
	for _, z := range l.zones {
		have = append(have, z.name)
	}
	for i := range l.ingesters {
		if m := &l.ingesters[i]; !m.Writable() {
			others = append(others, describe(m)+" in "+zoneOf(cfg, m))
		}
	}
	text := fmt.Sprintf("ingesters that take writes are in %d zones [%s], a quorum of %d copies needs %d",
		len(have), strings.Join(have, ", "), l.rf, l.quorum)
	if len(others) > 0 {
		text += "; not writable: " + strings.Join(others[:min(len(others), 10)], ", ")
	}
	return errkind.New(errkind.Unavailable, "%s", text)
}

// Placement says where the series of one tenant go. It is immutable and safe for concurrent use.
type Placement struct {
	layout *layout
	seed   uint64
	zones  []zone // of a shard; nil for all, and then the shared table has the answers
}

func (l *layout) tenant(tenant string, shard int) *Placement {
	key := tenantKey{tenant: tenant, shard: max(shard, 0)}
	l.shared.mtx.Lock()
	defer l.shared.mtx.Unlock()
	if p := l.shared.tenants[key]; p != nil {
		return p
	}
	p := &Placement{layout: l, seed: hashString(tenant)}
	if key.shard > 0 {
		p.zones = l.shardZones(p.seed, key.shard)
	}
	if len(l.shared.tenants) >= maxTenants {
		clear(l.shared.tenants)
	}
	l.shared.tenants[key] = p
	return p
}

// Seed is what sets the tenant's series apart from equal ones of another tenant.
func (p *Placement) Seed() uint64 { return p.seed }

// Version is that of the ring.
func (p *Placement) Version() uint64 { return p.layout.version }

// Ingesters are those of a ring of this version; what does not belong to the placement may be older than in the ring
// at hand.
func (p *Placement) Ingesters() []Member { return p.layout.ingesters }

// Partition is the part of the tenant's series that one with this labels.StableHash belongs to.
func (p *Placement) Partition(stableHash uint64) uint16 {
	return uint16(mix(p.seed^mix(stableHash)) >> 48)
}

// Replicas returns the ingesters of a partition: in each zone the one with the highest score, which depends on its
// number and not on the zone; and when there are more zones than copies, those with the highest score.
func (p *Placement) Replicas(partition uint16) Replicas {
	l := p.layout
	if l.err != nil {
		return Replicas{Err: l.err}
	}
	if p.zones != nil {
		return Replicas{Members: appendReplicas(make([]int32, 0, min(l.rf, len(p.zones))), p.zones, l.rf, partition)}
	}
	l.fill()
	width := min(l.rf, len(l.zones))
	at := int(partition) * width
	return Replicas{Members: l.shared.table[at : at+width : at+width]}
}

// fill computes the shared tables once.
func (l *layout) fill() { l.shared.once.Do(func() { l.shared.table, l.shared.counts = l.compute() }) }

func (l *layout) share(id string) float64 {
	slot := slices.IndexFunc(l.ingesters, func(m Member) bool { return m.ID == id })
	if slot < 0 || l.err != nil {
		return 0
	}
	l.fill()
	return float64(l.shared.counts[slot]) / Partitions
}
