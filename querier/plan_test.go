package querier

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

const hour = int64(time.Hour / time.Millisecond)

func points(from, to, step int64) (out []point) {
	for t := from; t < to; t += step {
		out = append(out, point{series: int(t/step) % 3, t: t, v: float64(t)})
	}
	return out
}

func ask(t *testing.T, q *Querier, mint, maxt int64) string {
	t.Helper()
	sq, err := q.Queryable().Querier(mint, maxt)
	require.NoError(t, err)
	defer func() { require.NoError(t, sq.Close()) }()
	return dump(t, sq.Select(as(t, tenantID), false, nil, everything))
}

func askError(t *testing.T, q *Querier, mint, maxt int64) error {
	t.Helper()
	sq, err := q.Queryable().Querier(mint, maxt)
	require.NoError(t, err)
	set := sq.Select(as(t, tenantID), false, nil, everything)
	require.False(t, set.Next(), "an answer where none is possible")
	require.NoError(t, sq.Close())
	return set.Err()
}

func TestBlockDeletedBetweenPlanAndReadIsPlannedAgain(t *testing.T) {
	old, recent := points(usualCut-4*hour, usualCut-2*hour, hour/4), points(usualCut-2*hour, now.UnixMilli(), hour/4)
	b := blockOf(blockID(1), old)
	manifests := &fakeManifests{
		current: &manifest.Manifest{Version: 1},
		fresh:   &manifest.Manifest{Version: 2, Blocks: []manifest.Block{b}},
	}
	rec := &fakeRecent{t: t, answer: func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return &listQuerier{points: recent}, duramenpb.Held{Floor: usualCut - 2*hour, DeletedVersion: 2}, nil
	}}
	q := newQuerier(t, rec, &fakeStore{t: t, blocks: map[ulid.ULID][]point{b.ULID: old}}, manifests)

	require.Equal(t, dumpPoints(t, append(old, recent...), 0, now.UnixMilli()), ask(t, q, 0, now.UnixMilli()))
	require.Equal(t, []duramenpb.View{{Version: 1, Cut: usualCut}, {Version: 2, Cut: usualCut}}, rec.views)
	for _, o := range rec.opened {
		require.Equal(t, 1, o.closed, "each opened querier is closed once")
	}
}

func TestFloorAboveTheCutRaisesTheCut(t *testing.T) {
	floor := usualCut + 3*hour
	old, recent := points(usualCut-4*hour, floor, hour/4), points(floor, now.UnixMilli(), hour/4)
	b := blockOf(blockID(1), old)
	m := &manifest.Manifest{Version: 7, Blocks: []manifest.Block{b}}
	rec := &fakeRecent{t: t, answer: func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return &listQuerier{points: recent}, duramenpb.Held{Floor: floor, DeletedVersion: 7}, nil
	}}
	q := newQuerier(t, rec, &fakeStore{t: t, blocks: map[ulid.ULID][]point{b.ULID: old}},
		&fakeManifests{current: m, fresh: m})
	for range 2 {
		require.Equal(t, dumpPoints(t, append(old, recent...), 0, now.UnixMilli()), ask(t, q, 0, now.UnixMilli()))
	}
	require.Equal(t, []duramenpb.View{{Version: 7, Cut: usualCut}, {Version: 7, Cut: floor}, {Version: 7, Cut: floor}},
		rec.views, "the second query knows the floor")

	// A range above the usual cut but below the floor needs the store after all.
	mint := usualCut + hour
	q = newQuerier(t, rec, &fakeStore{t: t, blocks: map[ulid.ULID][]point{b.ULID: old}},
		&fakeManifests{current: m, fresh: m})
	require.Equal(t, dumpPoints(t, append(old, recent...), mint, now.UnixMilli()), ask(t, q, mint, now.UnixMilli()))
}

func TestRangeAboveTheCutNeedsNoManifest(t *testing.T) {
	recent := points(usualCut-hour, now.UnixMilli(), hour/4)
	rec := &fakeRecent{t: t, answer: func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return &listQuerier{points: recent}, duramenpb.Held{Floor: usualCut - hour, DeletedVersion: 99}, nil
	}}
	manifests := &fakeManifests{err: errors.New("bucket: connection refused")}
	q := newQuerier(t, rec, &fakeStore{t: t}, manifests)
	require.Equal(t, dumpPoints(t, recent, usualCut, now.UnixMilli()), ask(t, q, usualCut, now.UnixMilli()))
	require.Equal(t, []duramenpb.View{{Version: 0, Cut: usualCut}}, rec.views)
	require.Equal(t, 1, manifests.asked, "what was deleted is asked for, once, and not waited for")
	require.Equal(t, dumpPoints(t, recent, usualCut, now.UnixMilli()), ask(t, q, usualCut, now.UnixMilli()))
	require.Equal(t, 1, manifests.asked)

	err := askError(t, q, usualCut-1, now.UnixMilli())
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	require.ErrorContains(t, err, "bucket: connection refused")
	require.ErrorContains(t, err, tenantID)

	manifests.err = errkind.New(errkind.Corrupt, "manifest 3 is damaged")
	require.Equal(t, errkind.Corrupt, errkind.Of(askError(t, q, 0, now.UnixMilli())))
}

func TestAPlanThatNeverFitsIsAnError(t *testing.T) {
	rec := &fakeRecent{t: t, answer: func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return &listQuerier{points: points(usualCut, now.UnixMilli(), hour)}, duramenpb.Held{DeletedVersion: 5}, nil
	}}
	m := &manifest.Manifest{Version: 4}
	q := newQuerier(t, rec, &fakeStore{t: t}, &fakeManifests{current: m, fresh: m})
	err := askError(t, q, 0, now.UnixMilli())
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	require.Len(t, rec.views, maxPlans)
	for _, o := range rec.opened {
		require.Equal(t, 1, o.closed)
	}
}

func TestStoreKeepsBelowTheCut(t *testing.T) {
	block := points(usualCut-hour, usualCut+hour, hour/4)
	b := blockOf(blockID(1), block)
	m := &manifest.Manifest{Version: 1, Blocks: []manifest.Block{b}}
	rec := &fakeRecent{t: t, answer: func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return &listQuerier{points: block}, duramenpb.Held{}, nil // the overlap is in both tiers
	}}
	store := &fakeStore{t: t, blocks: map[ulid.ULID][]point{b.ULID: block}}
	q := newQuerier(t, rec, store, &fakeManifests{current: m})
	require.Equal(t, dumpPoints(t, block, 0, now.UnixMilli()), ask(t, q, 0, now.UnixMilli()))
	require.Equal(t, usualCut-1, store.opened[0].maxt)
	require.Equal(t, dumpPoints(t, block, 0, usualCut-hour/2), ask(t, q, 0, usualCut-hour/2))
	require.Equal(t, usualCut-hour/2, store.opened[1].maxt)
	ask(t, q, 0, usualCut-3*hour)
	require.Len(t, store.opened, 2, "a range that no block overlaps does not open the store")
}

// life is an ingester and a bucket whose blocks move on at random between any two steps of a query.
type life struct {
	noDeletions

	t     *testing.T
	r     *rand.Rand
	local map[ulid.ULID][]point // blocks on the ingester's disk
	head  []point
	all   []point

	store    *fakeStore
	versions []*manifest.Manifest
	known    int // the version that Current returns; Refresh returns the newest
	steps    int // left during the present query: fewer than it may plan
	held     duramenpb.Held
}

// step ships, deletes or learns at random, as the rules allow.
func (l *life) step() {
	if l.steps--; l.steps < 0 {
		return
	}
	newest := l.versions[len(l.versions)-1]
	ids := slices.SortedFunc(maps.Keys(l.local), ulid.ULID.Compare) // the same story for each seed
	switch l.r.IntN(3) {
	case 0: // ship a block and list it
		for _, id := range ids {
			pts := l.local[id]
			if _, listed := newest.Find(id); !listed {
				l.store.blocks[id] = pts
				b := blockOf(id, pts)
				b.AddedVersion = newest.Version + 1
				l.versions = append(l.versions, &manifest.Manifest{
					Version: b.AddedVersion, Blocks: append(slices.Clone(newest.Blocks), b),
				})
				return
			}
		}
	case 1: // delete a block that is listed
		for _, id := range ids {
			pts := l.local[id]
			if b, listed := newest.Find(id); listed {
				delete(l.local, id)
				for _, p := range pts {
					l.held.Floor = max(l.held.Floor, p.t+1)
				}
				l.held.DeletedVersion = max(l.held.DeletedVersion, b.AddedVersion)
				return
			}
		}
	case 2:
		l.known = l.r.IntN(len(l.versions))
	}
}

func (*life) Unlisted(context.Context, string) (ulid.ULID, error) { return ulid.ULID{}, nil }

func (l *life) Known(string) *manifest.Manifest { return l.versions[l.known] }

func (l *life) Current(context.Context, string) (*manifest.Manifest, error) {
	l.step()
	return l.versions[l.known], nil
}

func (l *life) Refresh(context.Context, string) (*manifest.Manifest, error) {
	l.step()
	l.known = len(l.versions) - 1
	return l.versions[l.known], nil
}

// recent answers no more than the contract asks for: t ≥ Cut, and what Version does not list.
func (l *life) recent(view duramenpb.View, _, _ int64) (*listQuerier, duramenpb.Held, error) {
	l.step()
	q := &listQuerier{points: slices.Clone(l.head)}
	for id, pts := range l.local {
		listed := false
		if view.Version > 0 {
			_, listed = l.versions[view.Version-1].Find(id)
		}
		for _, p := range pts {
			if !listed || p.t >= view.Cut {
				q.points = append(q.points, p)
			}
		}
	}
	return q, l.held, nil
}

func TestEveryAcknowledgedSampleAtEveryMomentOfItsLife(t *testing.T) {
	for seed := range uint64(80) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := &life{
			t: t, r: r, local: map[ulid.ULID][]point{}, store: &fakeStore{t: t, blocks: map[ulid.ULID][]point{}},
			versions: []*manifest.Manifest{{Version: 1}},
			held:     duramenpb.Held{Floor: -1 << 62},
		}
		for n := range uint64(10) { // 20 h of blocks, some of them with late samples of any time
			from := now.UnixMilli() - int64(22-2*n)*hour
			pts := points(from, from+2*hour, hour/4)
			if r.IntN(3) == 0 {
				pts = append(pts, point{series: 1, t: from - r.Int64N(9*hour) | 1, v: float64(n)})
			}
			l.local[blockID(n+1)] = pts
			l.all = append(l.all, pts...)
		}
		l.head = points(now.UnixMilli()-2*hour, now.UnixMilli(), hour/4)
		l.all = append(l.all, l.head...)

		rec := &fakeRecent{t: t, answer: l.recent}
		q := newQuerier(t, rec, l.store, l)
		for range 20 {
			l.steps = 10
			for range r.IntN(4) {
				l.step()
			}
			l.steps = maxPlans - 1
			mint := now.UnixMilli() - r.Int64N(30*hour)
			maxt := mint + r.Int64N(30*hour)
			require.Equal(t, dumpPoints(t, l.all, mint, maxt), ask(t, q, mint, maxt), "seed %d, [%d, %d]", seed, mint, maxt)
		}
		for _, o := range append(rec.opened, l.store.opened...) {
			require.Equal(t, 1, o.closed)
		}
	}
}

func TestMakePlan(t *testing.T) {
	m := &manifest.Manifest{Version: 3, Blocks: []manifest.Block{
		{ULID: blockID(1), MinTime: 0, MaxTime: 100},
		{ULID: blockID(2), MinTime: 100, MaxTime: 200},
		{ULID: blockID(3), MinTime: 200, MaxTime: 300},
	}}
	for _, c := range []struct {
		mint, maxt, storeMaxt int64
		blocks                int
	}{
		{0, 1000, 199, 2}, {100, 1000, 199, 1}, {199, 1000, 199, 1}, {0, 50, 50, 1}, {200, 1000, 199, 0}, {50, 40, 40, 0},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			p := makePlan(m, 200, c.mint, c.maxt)
			require.Equal(t, c.storeMaxt, p.storeMaxt)
			require.Len(t, p.blocks, c.blocks)
			require.Equal(t, duramenpb.View{Version: 3, Cut: 200}, p.view)
		})
	}
}

func TestFloorsAreForgotten(t *testing.T) {
	f := newFloors()
	f.raise("a", usualCut+1, 1)
	f.raise("a", usualCut-5, 2)
	k, ok := f.get("a", usualCut)
	require.True(t, ok)
	require.Equal(t, knownFloor{usualCut + 1, 1}, k)
	_, ok = f.get("a", usualCut+hour)
	require.False(t, ok)
	require.Empty(t, f.byTenant)
}

var _ storage.SampleAndChunkQueryable = queryable{}
