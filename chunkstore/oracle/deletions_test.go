package oracle

import (
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tombstone"
)

// TestDeletionsAreThoseOfPrometheus: with deletions that concern some of the blocks, samples and chunks are those of
// Prometheus' own blocks on which the same was deleted.
func TestDeletionsAreThoseOfPrometheus(t *testing.T) {
	eachSeed(t, 0.15, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed)
		defer w.close(t)
		r := rand.New(rand.NewPCG(seed, 44))
		hidden := w.deleteSome(t, r)
		st, closeStore := newStore(t, w.bkt, setup{small: r.IntN(4) == 0})
		defer closeStore()
		for range 3 {
			a := w.randomAsk(r)
			a.hints = &storage.SelectHints{Start: a.mint, End: a.maxt}

			w.compareVisible(t, st, hidden, a, seed)
			w.compareVisibleChunks(t, st, hidden, a, seed)
		}
	})
}

// compareVisible reads the reference whole: Prometheus panics when it trims a chunk behind two deletions.
func (w *world) compareVisible(t *testing.T, st store, hidden *tombstone.Set, a ask, seed uint64) {
	t.Helper()
	reference := w.reference(t, math.MinInt64, math.MaxInt64)
	defer closed(t, reference)
	q, err := st.Querier(tenantID, w.blocks, hidden, a.mint, a.maxt)
	require.NoError(t, err)
	defer closed(t, q)
	want := visible(t, a, reference.Select(t.Context(), true, nil, a.copied()...))
	got := visible(t, a, q.Select(t.Context(), true, a.selectHints(), a.copied()...))
	require.Equal(t, want, got, "seed %d: %s", seed, a)
}

func (w *world) compareVisibleChunks(t *testing.T, st store, hidden *tombstone.Set, a ask, seed uint64) {
	t.Helper()
	chunked := w.chunkReference(t, math.MinInt64, math.MaxInt64)
	defer closed(t, chunked)
	cq, err := st.ChunkQuerier(tenantID, w.blocks, hidden, a.mint, a.maxt)
	require.NoError(t, err)
	defer closed(t, cq)
	want := visibleChunks(t, a, chunked.Select(t.Context(), true, nil, a.copied()...))
	got := visibleChunks(t, a, cq.Select(t.Context(), true, a.selectHints(), a.copied()...))
	require.Equal(t, want, got, "seed %d: chunks: %s", seed, a)
}

// deleteSome makes deletions, and deletes from the reference what they mean of each block that they concern.
func (w *world) deleteSome(t testing.TB, r *rand.Rand) *tombstone.Set {
	t.Helper()
	var ds []manifest.Deletion
	for id := range uint64(1 + r.IntN(4)) {
		d := manifest.Deletion{ID: id + 1, MinTime: w.MinTime + r.Int64N(w.MaxTime-w.MinTime)}
		d.MaxTime = d.MinTime + r.Int64N(3000)
		d.CreatedAt = 1000 + r.Int64N(1e12) // as the blocks' ULIDs
		for range 1 + r.IntN(2) {
			lset := w.Labels[r.IntN(len(w.Labels))]
			matchers := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", lset.Get("__name__"))}
			lset.Range(func(l labels.Label) {
				if l.Name != "__name__" && r.IntN(3) == 0 {
					typ := []labels.MatchType{labels.MatchEqual, labels.MatchNotEqual, labels.MatchRegexp}[r.IntN(3)]
					matchers = append(matchers, labels.MustNewMatcher(typ, l.Name, regexp.QuoteMeta(l.Value)))
				}
			})
			if r.IntN(4) == 0 {
				matchers[0] = labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")
			}
			d.Selectors = append(d.Selectors, selectorOf(matchers))
		}
		ds = append(ds, d)
	}
	for i := range w.blocks {
		b := &w.blocks[i]
		b.Writer = []string{"", "", manifest.IngesterWriter + "a", manifest.CompactorWriter + "b"}[r.IntN(4)]
		b.Deleted = uint64(r.IntN(2))
		for j := range ds {
			if !ds[j].Concerns(b) {
				continue
			}
			selectors, err := tombstone.Matchers(&ds[j])
			require.NoError(t, err)
			for _, matchers := range selectors {
				require.NoError(t, w.local[i].Delete(t.Context(), ds[j].MinTime, ds[j].MaxTime, matchers...))
			}
		}
	}
	hidden, err := tombstone.New(ds)
	require.NoError(t, err)
	return hidden
}

func selectorOf(matchers []*labels.Matcher) string {
	parts := make([]string, len(matchers))
	for i, m := range matchers {
		parts[i] = m.String()
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// visible returns the samples in range of each series that has any. Hints about counter resets behind a gap are not Prometheus':
// it keeps those that spoke of a sample that was deleted.
func visible(t testing.TB, a ask, set storage.SeriesSet) map[string]string {
	t.Helper()
	out := map[string]string{}
	for set.Next() {
		var b []byte
		it := set.At().Iterator(nil)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			if a.mint <= it.AtT() && it.AtT() <= a.maxt {
				b = appendSample(b, it, typ, false)
			}
		}
		require.NoError(t, it.Err())
		if len(b) > 0 {
			out[set.At().Labels().String()] += string(b)
		}
	}
	require.NoError(t, set.Err())
	return out
}

// visibleChunks is visible for chunks, which tell their times truly.
func visibleChunks(t testing.TB, a ask, set storage.ChunkSeriesSet) map[string]string {
	t.Helper()
	out := map[string]string{}
	for set.Next() {
		var b []byte
		metas := set.At().Iterator(nil)
		for metas.Next() {
			meta := metas.At()
			it := meta.Chunk.Iterator(nil)
			for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
				require.GreaterOrEqual(t, it.AtT(), meta.MinTime)
				require.LessOrEqual(t, it.AtT(), meta.MaxTime)
				if a.mint <= it.AtT() && it.AtT() <= a.maxt {
					b = appendSample(b, it, typ, false)
				}
			}
			require.NoError(t, it.Err())
		}
		require.NoError(t, metas.Err())
		if len(b) > 0 {
			out[set.At().Labels().String()] += string(b)
		}
	}
	require.NoError(t, set.Err())
	return out
}
