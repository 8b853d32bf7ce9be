package replicate

import (
	"context"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/ring"
)

// Rings tells the ring as it is now. It never returns nil.
type Rings interface{ Ring() *ring.Ring }

// Peers finds the way to a member. It is asked again whenever the ring's version changes.
type Peers interface{ Peer(m ring.Member) Peer }

// Peer is an ingester, here or elsewhere.
type Peer interface {
	// Send sends a section and calls done once: maybe before it returns. It never blocks. The section is the peer's until
	// done is called, and the result is valid in done only. After the deadline of ctx done is called with an error.
	Send(ctx context.Context, tenantID string, section []byte, done func(*duramenpb.PushResult, error))
}

// Limits answers with a tenant's limits.
type Limits interface {
	// IngestionTenantShardSize is how many ingesters share a tenant's series; 0 is all.
	IngestionTenantShardSize(tenantID string) int
}

// view is the members of one version of the ring. Members have numbers that stay theirs from version to version, other
// than the ring's slots, so that what a table knows of a member outlives changes of others. It is immutable.
type view struct {
	ring    *ring.Ring
	members []*member // by number; nil for those that are not in the ring any more
	numbers []uint32  // by slot
}

// member is an ingester of a view.
type member struct {
	id     string
	zone   string
	number uint32
	peer   Peer
	late   *atomic.Int64 // bytes of sections that outlived their requests, over all views
	sends  prometheus.Counter
	fails  prometheus.Counter
}

// view returns the present members.
func (r *Replicator) view() *view {
	now := r.rings.Ring()
	if v := r.current.Load(); v != nil && v.ring.Version() == now.Version() {
		return v
	}
	r.viewing.Lock()
	defer r.viewing.Unlock()
	old := r.current.Load()
	if now = r.rings.Ring(); old != nil && old.ring.Version() == now.Version() {
		return old
	}
	v := &view{ring: now}
	for _, m := range now.Ingesters() {
		n, ok := r.numbers[m.ID]
		if !ok {
			n = uint32(len(r.numbers))
			r.numbers[m.ID] = n
			r.late = append(r.late, &atomic.Int64{})
		}
		v.numbers = append(v.numbers, n)
	}
	v.members = make([]*member, len(r.numbers))
	for slot, m := range now.Ingesters() {
		n := v.numbers[slot]
		v.members[n] = &member{
			id: m.ID, zone: now.ZoneOf(m), number: n, peer: r.peers.Peer(m), late: r.late[n],
			sends: r.metrics.sends.WithLabelValues(m.ID), fails: r.metrics.fails.WithLabelValues(m.ID),
		}
	}
	r.metrics.forgetGone(old, v)
	r.current.Store(v)
	return v
}

// placement says where the series of one tenant go in one view.
type placement struct {
	no    uint32 // differs when placement does; never 0
	shard int
	view  *view
	ring  *ring.Placement
}

func (p *placement) partition(hash uint64) uint16 { return p.ring.Partition(hash) }

// replicas appends the numbers of the members of a partition. The error is why there are too few.
func (p *placement) replicas(dst []uint32, partition uint16) ([]uint32, error) {
	found := p.ring.Replicas(partition)
	if found.Err != nil {
		return dst, found.Err
	}
	for _, slot := range found.Members {
		dst = append(dst, p.view.numbers[slot])
	}
	return dst, nil
}

// place returns the placement of the tenant's series in v. Entries that were placed otherwise are placed anew when they
// are seen next.
func (t *table) place(v *view, shard int) *placement {
	if p := t.placement.Load(); p != nil && p.view == v && p.shard == shard {
		return p
	}
	t.placing.Lock()
	defer t.placing.Unlock()
	last := t.placement.Load()
	if last != nil && last.view == v && last.shard == shard {
		return last
	}
	next := &placement{no: 1, shard: shard, view: v, ring: v.ring.Tenant(t.id, shard)}
	if last != nil {
		next.no = last.no + 1
	}
	t.placement.Store(next)
	return next
}

// settle places an entry. The caller holds the write lock.
func (t *table) settle(e *entry, replicas []replica, p *placement) error {
	if e.placed == p.no {
		return nil
	}
	var numbers [maxReplicas]uint32
	found, err := p.replicas(numbers[:0], e.partition)
	if err != nil {
		return err
	}
	var old [maxReplicas]replica
	found = found[:min(len(found), len(replicas))]
	known := old[:copy(old[:], replicas[:e.replicas])]
	for i, n := range found {
		replicas[i] = replica{member: n}
		for _, k := range known {
			if k.member == n {
				replicas[i] = k
			}
		}
	}
	e.replicas, e.placed = uint8(len(found)), p.no
	return nil
}
