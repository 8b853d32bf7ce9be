package fanout

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/querier"
	"github.com/duramendb/duramen/ring"
	"github.com/duramendb/duramen/tenant"
)

var named = labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "m")

// ask runs a query as the engine does: again and again while answers break off.
func (w *world) ask(mint, maxt int64, asChunks bool) (samples, error) {
	ctx, cancel := context.WithTimeout(tenant.WithID(context.Background(), tenantID), time.Minute)
	defer cancel()
	var err error
	for range 4 {
		var got samples
		if got, err = w.askOnce(ctx, mint, maxt, asChunks); err == nil {
			return got, nil
		}
		if !errors.Is(err, querier.ErrAnew) {
			break
		}
	}
	return nil, err
}

func (w *world) askOnce(ctx context.Context, mint, maxt int64, asChunks bool) (samples, error) {
	got := samples{}
	add := func(lset labels.Labels, it chunkenc.Iterator) error {
		var i int
		_, err := fmt.Sscan(lset.Get("i"), &i)
		require.NoError(w.t, err)
		last := int64(-1)
		for it.Next() != chunkenc.ValNone {
			t, v := it.At()
			require.Greater(w.t, t, last)
			last, got[key{i, t}] = t, v
		}
		return it.Err()
	}
	if asChunks {
		q, err := w.querier.Queryable().ChunkQuerier(mint, maxt)
		require.NoError(w.t, err)
		defer func() { require.NoError(w.t, q.Close()) }()
		set := q.Select(ctx, true, nil, named)
		for set.Next() {
			it := set.At().Iterator(nil)
			for it.Next() {
				require.NoError(w.t, add(set.At().Labels(), it.At().Chunk.Iterator(nil)))
			}
			if it.Err() != nil {
				return nil, it.Err()
			}
		}
		return got, set.Err()
	}
	q, err := w.querier.Queryable().Querier(mint, maxt)
	require.NoError(w.t, err)
	defer func() { require.NoError(w.t, q.Close()) }()
	set := q.Select(ctx, true, nil, named)
	var all []storage.Series
	for set.Next() {
		all = append(all, set.At())
	}
	if set.Err() != nil {
		return nil, set.Err()
	}
	for _, s := range all {
		if err := add(s.Labels(), s.Iterator(nil)); err != nil {
			return nil, err
		}
	}
	return got, nil
}

// check compares an answer with what must be in it and what may be.
func (w *world) check(got samples, mint, maxt int64, what string) {
	w.t.Helper()
	for k, v := range w.acked.within(mint, maxt) {
		if found, ok := got[k]; !ok || found != v {
			require.Failf(w.t, "answer is short", "%s: %v is %v of %v\n%s", what, k, found, v, w.where(k))
		}
	}
	for k, v := range got {
		if mint > k.t || k.t > maxt {
			require.Failf(w.t, "answer is long", "%s: %v is not asked for", what, k)
		}
		if !hasKey(w.acked, k) && (!hasKey(w.unsure, k) || w.unsure[k] != v) {
			require.Failf(w.t, "answer is wrong", "%s: %v with %v was never sent", what, k, v)
		}
	}
}

func hasKey(s samples, k key) bool {
	_, ok := s[k]
	return ok
}

// where says who holds a sample.
func (w *world) where(k key) (out string) {
	for _, n := range w.nodes {
		seen, _ := w.seen.Get(n.m.ID)
		out += fmt.Sprintf("%s %s (seen %s): holds %t, listed in %d, %+v, lost before %d, trouble %d\n", n.m.ID, n.m.State,
			seen.State, hasKey(n.data, k), n.listed[k], n.held, n.m.LostBefore, n.is)
	}
	for _, b := range w.newest.Blocks {
		if hasKey(w.blocks[b.ULID], k) {
			out += fmt.Sprintf("block of version %d; newest %d, known %d\n", b.AddedVersion, w.newest.Version, w.known.Version)
		}
	}
	return out
}

// TestAnswersAreExactOrErrors lets members come to all kinds of harm, and compares each answer with the samples that were
// acknowledged.
func TestAnswersAreExactOrErrors(t *testing.T) {
	const seeds = 28
	answered, failed := 0, 0
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) {
			shapes := [][3]int{{3, 3, 1}, {3, 3, 2}, {3, 3, 3}, {3, 4, 1}, {1, 1, 3}, {1, 3, 1}, {5, 5, 1}}
			shape := shapes[seed%uint64(len(shapes))]
			w := newWorld(t, seed, shape[0], shape[1], shape[2])
			defer w.end()
			for step := range 40 {
				w.step()
				if step%2 == 0 {
					continue
				}
				now := time.Now().UnixMilli()
				mint := now - w.r.Int64N(20*time.Hour.Milliseconds())
				maxt := mint + w.r.Int64N(20*time.Hour.Milliseconds())
				what := fmt.Sprintf("seed %d, step %d", seed, step)
				got, err := w.ask(mint, maxt, w.r.IntN(4) == 0)
				if err != nil {
					failed++
					kind := errkind.Of(err)
					require.Contains(t, []errkind.Kind{errkind.Unavailable, errkind.Corrupt, errkind.Limited}, kind, "%s: %s", what, err)
					require.False(t, w.fit(mint), "%s: %s", what, err)
					continue
				}
				answered++
				w.check(got, mint, maxt, what)
			}
		})
	}
	require.Greater(t, answered, seeds, "worlds are too broken to say anything: %d failed", failed)
	require.Greater(t, failed, seeds/10, "worlds are too fine")
}

// end waits for what still goes on.
func (w *world) end() {
	time.Sleep(time.Minute)
	require.NoError(w.t, w.fanout.Close())
}

// fit reports that a query from mint has to be answered: the bucket is there, the ring is known, and no more zones are in
// trouble than may be.
func (w *world) fit(mint int64) bool {
	if w.bucketAway {
		return false
	}
	bad := map[string]bool{}
	for _, n := range w.nodes {
		seen, ok := w.seen.Get(n.m.ID)
		if !ok || seen.State != n.m.State || seen.Epoch != n.m.Epoch {
			return false
		}
		if n.m.State != ring.Left && n.is != fine && n.is != slow {
			bad[n.m.Zone] = true
		}
	}
	for _, z := range w.seen.ReadZones() {
		if z.CompleteFrom > mint {
			bad[z.Name] = true
		}
	}
	return len(bad) <= w.seen.MayMiss()
}

// step changes the world a little.
func (w *world) step() {
	time.Sleep(time.Duration(w.r.Int64N(int64(20 * time.Minute))))
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now().UnixMilli()
	for range w.r.IntN(60) {
		back := int64(0)
		if w.r.IntN(4) == 0 {
			back = 18 * time.Hour.Milliseconds()
		}
		k := key{w.r.IntN(6), now - w.r.Int64N(back+5*60_000)}
		if _, ok := w.acked[k]; ok {
			continue
		}
		lossy := w.r.IntN(4) == 0
		w.write(k, float64(k.t*10+int64(k.series)), func(*node) bool { return lossy && w.r.IntN(3) == 0 })
	}
	for _, n := range w.nodes {
		if n.gone {
			continue
		}
		switch w.r.IntN(20) {
		case 0, 1:
			n.is = trouble(w.r.IntN(int(troubles)))
		case 2, 3, 4:
			n.is = fine
		case 5:
			n.ship(now - w.r.Int64N(10*time.Hour.Milliseconds()))
		case 6:
			n.deleteLocal(now - w.r.Int64N(12*time.Hour.Milliseconds()))
		case 7:
			if w.r.IntN(3) == 0 {
				n.loseDisk()
				w.gossip() // it says so before it takes anything
			}
		case 8:
			if w.r.IntN(3) == 0 && w.zonesLeft(n) >= w.seen.RF() {
				n.leave()
			}
		}
	}
	w.bucketAway = w.r.IntN(8) == 0
	if w.r.IntN(3) > 0 {
		w.gossip()
	}
}

// zonesLeft counts the zones that there are without n.
func (w *world) zonesLeft(n *node) int {
	zones := map[string]bool{}
	for _, other := range w.nodes {
		if other != n && other.m.State != ring.Left {
			zones[other.m.Zone] = true
		}
	}
	return len(zones)
}
