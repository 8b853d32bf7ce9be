package oracle

import (
	"bytes"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
)

// TestAnswersAreThoseOfPrometheus asks one store several things about each world, so that some of it comes from caches.
func TestAnswersAreThoseOfPrometheus(t *testing.T) {
	eachSeed(t, 1, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed)
		defer w.close(t)
		r := rand.New(rand.NewPCG(seed, 4))
		st, closeStore := newStore(t, w.bkt, setup{noMemory: r.IntN(4) == 0, small: r.IntN(4) == 0})
		defer closeStore()
		for i := range 6 {
			a := w.randomAsk(r)
			switch i % 3 {
			case 0, 1:
				w.compareSamples(t, st, a, seed)
			default:
				w.compareChunks(t, st, a, seed)
			}
			if i == 0 {
				w.compareLabels(t, st, a, r, seed)
			}
		}
	})
}

// closed closes what a test used, also when it failed: a block waits for its readers.
func closed(t testing.TB, c io.Closer) {
	t.Helper()
	require.NoError(t, c.Close())
}

func (w *world) compareSamples(t *testing.T, st store, a ask, seed uint64) {
	t.Helper()
	reference := w.reference(t, a.mint, a.maxt)
	defer closed(t, reference)
	q, err := st.Querier(tenantID, w.blocks, nil, a.mint, a.maxt)
	require.NoError(t, err)
	defer closed(t, q)
	want, err := a.read(reference.Select(t.Context(), a.sorted, a.selectHints(), a.copied()...))
	require.NoError(t, err, "seed %d: %s: reference", seed, a)
	got, err := a.read(q.Select(t.Context(), a.sorted, a.selectHints(), a.copied()...))
	require.NoError(t, err, "seed %d: %s", seed, a)
	if !a.sorted {
		slices.SortFunc(want, bytes.Compare)
		slices.SortFunc(got, bytes.Compare)
	}
	requireEqual(t, want, got, "seed %d: %s", seed, a)
	if a.sorted && a.hints != nil && a.hints.Func == "" && len(want) > 0 {
		w.compareLimit(t, q, a, want, seed)
	}
}

// compareLimit: with a limit the answer is the begin of the whole one, as long as the limit or longer.
func (w *world) compareLimit(t *testing.T, q storage.Querier, a ask, all [][]byte, seed uint64) {
	t.Helper()
	a.reading = asTheyCome
	h := a.selectHints()
	h.Limit = 1 + int(a.seed%uint64(len(all)))
	got, err := a.read(q.Select(t.Context(), true, h, a.copied()...))
	require.NoError(t, err, "seed %d: %s", seed, a)
	require.GreaterOrEqual(t, len(got), h.Limit, "seed %d: %s", seed, a)
	for i, part := range got {
		line, _, _ := bytes.Cut(all[i], []byte("\n"))
		require.True(t, bytes.HasPrefix(part, line), "seed %d: %s: series %d with limit %d", seed, a, i, h.Limit)
	}
}

func (w *world) compareChunks(t *testing.T, st store, a ask, seed uint64) {
	t.Helper()
	if a.hints == nil {
		a.hints = &storage.SelectHints{Start: a.mint, End: a.maxt, DisableTrimming: true}
	}
	a.hints.Func = ""
	reference := w.chunkReference(t, a.mint, a.maxt)
	defer closed(t, reference)
	q, err := st.ChunkQuerier(tenantID, w.blocks, nil, a.mint, a.maxt)
	require.NoError(t, err)
	defer closed(t, q)
	exact := len(w.blocks) == 1 && a.hints.DisableTrimming
	want, err := a.readChunks(reference.Select(t.Context(), true, a.selectHints(), a.copied()...), exact)
	require.NoError(t, err, "seed %d: %s: reference", seed, a)
	got, err := a.readChunks(q.Select(t.Context(), true, a.selectHints(), a.copied()...), exact)
	require.NoError(t, err, "seed %d: %s", seed, a)
	requireEqual(t, want, got, "seed %d: chunks, exact %t: %s", seed, exact, a)
}

func (w *world) compareLabels(t *testing.T, st store, a ask, r *rand.Rand, seed uint64) {
	t.Helper()
	reference := w.reference(t, a.mint, a.maxt)
	defer closed(t, reference)
	q, err := st.Querier(tenantID, w.blocks, nil, a.mint, a.maxt)
	require.NoError(t, err)
	defer closed(t, q)
	for _, with := range []bool{false, true} {
		ask := a
		if !with {
			ask.matchers = nil
		}
		limit := &storage.LabelHints{Limit: 1 + r.IntN(4)}
		check := func(what string, get func(storage.Querier, *storage.LabelHints) ([]string, error)) {
			want, err := get(reference, nil)
			require.NoError(t, err)
			got, err := get(q, nil)
			require.NoError(t, err, "seed %d: %s: %s", seed, what, ask)
			slices.Sort(want)
			require.Equal(t, append([]string{}, want...), append([]string{}, got...), "seed %d: %s: %s", seed, what, ask)
			limited, err := get(q, limit)
			require.NoError(t, err)
			require.Len(t, limited, min(limit.Limit, len(want)), "seed %d: %s, limit %d: %s", seed, what, limit.Limit, ask)
			require.Subset(t, want, limited)
		}
		for _, name := range []string{"__name__", "i", "mod", "pod", "rare0", "Zone", "absent", "replica"} {
			check("values of "+name, func(q storage.Querier, h *storage.LabelHints) ([]string, error) {
				values, _, err := q.LabelValues(t.Context(), name, h, ask.copied()...)
				return values, err
			})
		}
		check("names", func(q storage.Querier, h *storage.LabelHints) ([]string, error) {
			names, _, err := q.LabelNames(t.Context(), h, ask.copied()...)
			return names, err
		})
	}
}
