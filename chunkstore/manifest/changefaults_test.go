package manifest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
)

// deeds are what the rivals have been told, and what they tried.
type deeds struct {
	mu        sync.Mutex
	added     map[ulid.ULID]bool
	dropped   map[ulid.ULID]bool // sources; perhaps: the answer may have been lost
	annotated map[ulid.ULID]bool
	lost      []LostRange
	swapped   int
}

// TestRivalsChangeEverythingOnAFaultyBucket is TestManyOwnersOnAFaultyBucket for all changes at once: compactions that
// race for the same blocks, retention, annotations, losses and announcements. Whatever the bucket does, no sample that
// was announced is lost or in two blocks unless it was dropped, no annotation is lost, and each version follows from the
// one before.
func TestRivalsChangeEverythingOnAFaultyBucket(t *testing.T) {
	seed := faultbucket.Seed(t)
	swapped := 0
	for round := range uint64(4) {
		inner := bucket.NewInMemory()
		bkt := faultbucket.New(inner, faultbucket.Seeded(seed+round, 0.2,
			faultbucket.Before, faultbucket.After, faultbucket.Truncate, faultbucket.StallAfter))
		bkt.DelayListings(int(round)) //nolint:gosec // at most 3
		d := &deeds{added: map[ulid.ULID]bool{}, dropped: map[ulid.ULID]bool{}, annotated: map[ulid.ULID]bool{}}
		var done sync.WaitGroup
		for i := range 3 {
			o := newTestOwner(bkt, time.Now)
			for w := range 3 {
				done.Go(func() {
					r := rand.New(rand.NewPCG(seed, round<<32+uint64(3*i+w)))
					for n := range 20 {
						ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
						d.act(ctx, o, r, 1000*(3*i+w)+2*n)
						cancel()
					}
				})
			}
		}
		done.Wait()
		d.check(t, inner)
		swapped += d.swapped
	}
	require.Positive(t, swapped)
}

// act does one random thing; n and n+1 are numbers for new blocks.
func (d *deeds) act(ctx context.Context, o *Owner, r *rand.Rand, n int) {
	m, err := o.Current(ctx, "acme")
	if err != nil || r.IntN(3) == 0 || len(m.Blocks) < 2 {
		b := testBlock(n)
		if _, err := o.Add(ctx, "acme", b); err == nil {
			d.note(func() { d.added[b.ULID] = true })
		}
		return
	}
	at := r.IntN(len(m.Blocks) - 1)
	one, two := m.Blocks[at], m.Blocks[at+1]
	switch r.IntN(8) {
	case 0:
		d.note(func() {
			for _, id := range one.Sources {
				d.dropped[id] = true
			}
		})
		_, _ = o.Swap(ctx, "acme", Change{Drop: []ulid.ULID{one.ULID}})
	case 1:
		l := LostRange{MinTime: r.Int64N(50), MaxTime: 50 + r.Int64N(50), Reason: fmt.Sprint(r.IntN(3))}
		if o.Lost(ctx, "acme", l) == nil {
			d.note(func() { d.lost = append(d.lost, l) })
		}
	case 2, 3, 4:
		size := 2 + int64(one.ULID[15])
		if o.Annotate(ctx, "acme", Annotation{ULID: one.ULID, SidecarBytes: size, DirectoryBytes: 1}) == nil {
			d.note(func() { d.annotated[one.ULID] = true })
		}
	default:
		merged := testBlock(n + 1)
		merged.Writer, merged.Level = CompactorWriter+"0", 2
		merged.MinTime, merged.MaxTime = one.MinTime, max(one.MaxTime, two.MaxTime)
		merged.Sources = slices.Concat(one.Sources, two.Sources)
		change := Change{Add: []Block{merged}, Replace: []ulid.ULID{one.ULID, two.ULID}}
		if _, err := o.Swap(ctx, "acme", change); err == nil {
			d.note(func() { d.swapped++ })
		}
	}
}

func (d *deeds) note(fn func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fn()
}

func (d *deeds) check(t *testing.T, bkt bucket.Bucket) {
	t.Helper()
	m, err := newTestOwner(bkt, time.Now).Current(t.Context(), "acme")
	require.NoError(t, err)
	before := &Manifest{Tenant: "acme"}
	for version := uint64(1); version <= m.Version; version++ {
		next, err := Decode([]byte(buckettest.Get(t, bkt, Key("acme", version))))
		require.NoError(t, err)
		d.checkStep(t, before, next)
		before = next
	}
	require.Equal(t, m, before)
	for id := range d.added {
		require.True(t, m.Knows(id), "announced block %s", id)
	}
	for _, l := range d.lost {
		require.True(t, slices.ContainsFunc(m.Lost, func(have LostRange) bool {
			return have.Reason == l.Reason && have.MinTime <= l.MinTime && l.MaxTime <= have.MaxTime
		}), "%v in %v", l, m.Lost)
	}
	for i := range m.Blocks {
		if d.annotated[m.Blocks[i].ULID] {
			require.NotZero(t, m.Blocks[i].SidecarBytes, "block %s", m.Blocks[i].ULID)
		}
	}
}

func (d *deeds) checkStep(t *testing.T, before, next *Manifest) {
	t.Helper()
	require.Equal(t, before.Version+1, next.Version)
	had, has := before.known(), next.known()
	for id, shards := range has.holdings {
		require.Len(t, shards, 1, "version %d has source %s twice", next.Version, id)
	}
	for id := range had.holdings {
		if !d.dropped[id] {
			require.Contains(t, has.holdings, id, "version %d lost source %s", next.Version, id)
		}
	}
	for id := range had.removed {
		require.Contains(t, has.removed, id)
		require.NotContains(t, has.places, id, "version %d brings block %s back", next.Version, id)
	}
	for id, i := range had.places {
		j, listed := has.places[id]
		if !listed {
			require.Contains(t, has.removed, id, "version %d does not remember block %s", next.Version, id)
			continue
		}
		if before.Blocks[i].SidecarBytes != 0 {
			require.Equal(t, before.Blocks[i].SidecarBytes, next.Blocks[j].SidecarBytes)
		}
	}
}
