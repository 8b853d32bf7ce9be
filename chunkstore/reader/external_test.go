package reader

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
)

// addLabels returns a copy of the block in dir whose series have the labels in their own index: what a reader that adds
// them has to answer. Series that become equal are one.
func addLabels(t testing.TB, from *tsdb.Block, external map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	w, err := tsdb.NewBlockWriter(nopLog, dir, 1<<40)
	require.NoError(t, err)
	defer func() { require.NoError(t, w.Close()) }()
	q, err := tsdb.NewBlockQuerier(from, math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	set := q.Select(t.Context(), true, nil, everything)
	for set.Next() {
		b := labels.NewBuilder(set.At().Labels())
		for name, value := range external {
			b.Set(name, value)
		}
		app := w.AppenderV2(t.Context())
		for it := set.At().Iterator(nil); ; {
			typ := it.Next()
			if typ == 0 {
				require.NoError(t, it.Err())
				break
			}
			var fl float64
			ts := it.AtT()
			s := storage.AOptions{}
			switch typ.String() {
			case "histogram":
				_, h := it.AtHistogram(nil)
				_, err = app.Append(0, b.Labels(), 0, ts, 0, h, nil, s)
			case "floathistogram":
				_, h := it.AtFloatHistogram(nil)
				_, err = app.Append(0, b.Labels(), 0, ts, 0, nil, h, s)
			default:
				_, fl = it.At()
				_, err = app.Append(0, b.Labels(), 0, ts, fl, nil, nil, s)
			}
			require.NoError(t, err)
		}
		require.NoError(t, app.Commit())
	}
	require.NoError(t, set.Err())
	id, err := w.Flush(t.Context())
	require.NoError(t, err)
	return dir + "/" + id.String()
}

// TestExternalLabelsAreAsIfWrittenInTheBlock compares blocks with external labels with Prometheus' reader of blocks that
// hold them. The labels sort before, between and behind the series' own and replace one of them.
func TestExternalLabelsAreAsIfWrittenInTheBlock(t *testing.T) {
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 9))
		f, dir := &fixture{bkt: bucket.NewInMemory()}, t.TempDir()
		for n := range 3 {
			external := map[string]string{"Region": "eu", "replica": fmt.Sprint("r", n%2)}
			own := writeBlock(t, r, dir, 3+r.IntN(10), int64(n)*3000, int64(n)*3000+2500, 50)
			plain, err := tsdb.OpenBlock(nopLog, own, nil, nil)
			require.NoError(t, err)
			if n == 2 { // mod replaces the series' own; i keeps them apart
				external = map[string]string{"zone": "z", "mod": "7"}
			}
			b, err := tsdb.OpenBlock(nopLog, addLabels(t, plain, external), nil, nil)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, b.Close()) })
			f.local = append(f.local, b)
			entry, err := block.Upload(t.Context(), f.bkt, tenantID, own, "test")
			require.NoError(t, err)
			entry.Labels = external
			f.blocks = append(f.blocks, entry)
			require.NoError(t, plain.Close())
		}
		rd := f.reader(t, f.bkt)
		for range 10 {
			matchers := randomMatchers(r)
			matchers = append(matchers, []*labels.Matcher{
				equal("Region", "eu"), labels.MustNewMatcher(labels.MatchNotEqual, "replica", "r1"),
				labels.MustNewMatcher(labels.MatchRegexp, "mod", "7|1"), equal("zone", ""), equal("Region", ""),
				equal("absent", ""),
			}[r.IntN(6)])
			hints := &storage.SelectHints{Start: int64(r.IntN(8000)), End: 9000, Func: "rate"}
			if r.IntN(3) == 0 {
				hints.ShardCount, hints.ShardIndex = 2, r.Uint64N(2)
			}
			want, got := f.reference(t, 0, 9000), must(rd.Querier(tenantID, f.blocks, nil, 0, 9000))
			wantText := dumpWithoutHints(t, want.Select(t.Context(), true, hints, slices.Clone(matchers)...))
			gotText := dumpWithoutHints(t, got.Select(t.Context(), true, hints, matchers...))
			require.Equal(t, wantText, gotText, "seed %d: %v", seed, matchers)
			for _, name := range []string{"Region", "replica", "mod", "i", "zone", labels.MetricName} {
				wantValues, _, err := want.LabelValues(t.Context(), name, nil, slices.Clone(matchers)...)
				require.NoError(t, err)
				gotValues, _, err := got.LabelValues(t.Context(), name, nil, matchers...)
				require.NoError(t, err)
				require.ElementsMatch(t, wantValues, gotValues, "seed %d: values of %s under %v", seed, name, matchers)
			}
			for _, ms := range [][]*labels.Matcher{matchers, nil} {
				wantNames, _, err := want.LabelNames(t.Context(), nil, slices.Clone(ms)...)
				require.NoError(t, err)
				gotNames, _, err := got.LabelNames(t.Context(), nil, ms...)
				require.NoError(t, err)
				require.ElementsMatch(t, wantNames, gotNames, "seed %d: names under %v", seed, ms)
			}
			require.NoError(t, want.Close())
			require.NoError(t, got.Close())
		}
	}
}

// TestSeriesThatExternalLabelsMakeEqualAreOne: the block has them apart, the answer may not.
func TestSeriesThatExternalLabelsMakeEqualAreOne(t *testing.T) {
	f := &fixture{bkt: bucket.NewInMemory()}
	f.add(t, writeBlock(t, rand.New(rand.NewPCG(1, 4)), t.TempDir(), 40, 0, 1000, 10))
	f.blocks[0].Labels = map[string]string{"i": "x", "mod": "y"}
	q := must(f.reader(t, f.bkt).Querier(tenantID, f.blocks, nil, 0, 1000))
	defer func() { require.NoError(t, q.Close()) }()
	set := q.Select(t.Context(), true, nil, everything)
	seen := map[string]bool{}
	for set.Next() {
		text := set.At().Labels().String()
		require.False(t, seen[text], text)
		seen[text] = true
		it, last := set.At().Iterator(nil), int64(-1)
		for it.Next() != 0 {
			require.Greater(t, it.AtT(), last)
			last = it.AtT()
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	require.Len(t, seen, 4, "a series for each metric: %v", slices.Collect(maps.Keys(seen)))
}
