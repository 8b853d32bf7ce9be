package fanout

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/querier"
)

const (
	history = 5 * time.Hour
	step    = 15 * time.Minute
)

// fill writes samples of all kinds over some hours, part of them late; ingesters cut blocks when they like.
func (c *cluster) fill(t *testing.T, r *rand.Rand, seriesCount int) {
	t.Helper()
	first, end := now.Add(-history).UnixMilli(), now.UnixMilli()
	for at := first; at < end; at += step.Milliseconds() {
		var entries []entry
		for n := range seriesCount {
			from := at
			if r.IntN(8) == 0 {
				from = max(first, at-int64(r.IntN(int((2*time.Hour).Milliseconds()))))
			}
			e := entry{skip: r.IntN(zones+1) - 1, lset: labels.FromStrings("__name__", fmt.Sprintf("m%d", n%5),
				"i", fmt.Sprintf("%03d", n), "job", []string{"a", "b", "\xff"}[n%3])}
			e.samples(r, n, from)
			entries = append(entries, e)
		}
		c.write(t, entries)
		for _, n := range c.nodes {
			if r.IntN(12) == 0 {
				_, err := n.Flush(context.Background(), tenantID, true)
				require.NoError(t, err)
			}
		}
	}
}

// samples adds some of the kind of series n. A value belongs to its time, so that one that comes twice is the same.
func (e *entry) samples(r *rand.Rand, n int, from int64) {
	from -= from % 15_000
	for s := range 1 + r.IntN(20) {
		t := from + int64(s)*15_000 + int64(n%7)
		k := (t / 15_000) % 1000
		switch {
		case n%5 == 3:
			e.histograms = append(e.histograms, duramenpb.Histogram{T: t, H: tsdbutil.GenerateTestHistogram(k)})
		case n%5 == 4 && k%29 == 0:
			h := &histogram.FloatHistogram{Sum: math.Float64frombits(value.StaleNaN)}
			e.histograms = append(e.histograms, duramenpb.Histogram{T: t, FH: h})
		case n%5 == 4:
			e.histograms = append(e.histograms, duramenpb.Histogram{T: t, FH: tsdbutil.GenerateTestFloatHistogram(k)})
		case k%31 == 0:
			e.floats = append(e.floats, duramenpb.Float{T: t, V: math.Float64frombits(value.StaleNaN)})
		default:
			e.floats = append(e.floats, duramenpb.Float{T: t, V: float64(k) / 3})
		}
	}
}

// answer is samples as text by series.
type answer map[string][]string

func (a answer) add(lset labels.Labels, it chunkenc.Iterator, mint, maxt int64) error {
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		t := it.AtT()
		if t < mint || t > maxt {
			continue
		}
		text := fmt.Sprint(t, " ")
		switch kind {
		case chunkenc.ValHistogram:
			_, h := it.AtHistogram(nil)
			text += fmt.Sprintf("%x %s", math.Float64bits(h.Sum), h)
		case chunkenc.ValFloatHistogram:
			_, h := it.AtFloatHistogram(nil)
			text += fmt.Sprintf("%x %s", math.Float64bits(h.Sum), h)
		default:
			_, v := it.At()
			text += fmt.Sprintf("%x", math.Float64bits(v))
		}
		a[lset.String()] = append(a[lset.String()], text)
	}
	return it.Err()
}

type sampleSource interface {
	Querier(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64) (
		storage.Querier, duramenpb.Held, error)
}

func readSamples(
	ctx context.Context, from sampleSource, view duramenpb.View, mint, maxt int64, matchers ...*labels.Matcher,
) (answer, error) {
	q, _, err := from.Querier(ctx, tenantID, view, mint, maxt)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	a, set := answer{}, q.Select(ctx, true, nil, matchers...)
	for set.Next() {
		if err := a.add(set.At().Labels(), set.At().Iterator(nil), mint, maxt); err != nil {
			return nil, err
		}
	}
	return a, set.Err()
}

func (c *cluster) readChunks(
	ctx context.Context, view duramenpb.View, mint, maxt int64, matchers ...*labels.Matcher,
) (answer, error) {
	q, _, err := c.ChunkQuerier(ctx, tenantID, view, mint, maxt)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	a, set := answer{}, q.Select(ctx, true, nil, matchers...)
	for set.Next() {
		var it chunks.Iterator
		for it = set.At().Iterator(it); it.Next(); {
			if err := a.add(set.At().Labels(), it.At().Chunk.Iterator(nil), mint, maxt); err != nil {
				return nil, err
			}
		}
		if err := it.Err(); err != nil {
			return nil, err
		}
	}
	return a, set.Err()
}

// again asks as the querier does: anew when an answer broke off.
func again(ask func() (answer, error)) (a answer, err error) {
	for range 4 {
		if a, err = ask(); !errors.Is(err, querier.ErrAnew) {
			break
		}
	}
	return a, err
}

func randomMatchers(r *rand.Rand) []*labels.Matcher {
	all := []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchRegexp, "__name__", "m.*"),
		labels.MustNewMatcher(labels.MatchEqual, "__name__", fmt.Sprintf("m%d", r.IntN(5))),
		labels.MustNewMatcher(labels.MatchNotEqual, "job", "a"),
		labels.MustNewMatcher(labels.MatchRegexp, "i", fmt.Sprintf(".*%d", r.IntN(10))),
	}
	return []*labels.Matcher{all[r.IntN(len(all))], labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")}
}

func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// compare asks the cluster and the oracle the same, by samples and by chunks.
func (c *cluster) compare(t *testing.T, r *rand.Rand) (found int) {
	t.Helper()
	end := now.UnixMilli()
	mint := end - int64(r.IntN(int(history.Milliseconds())))
	maxt := mint + int64(r.IntN(int((3 * time.Hour).Milliseconds())))
	matchers := randomMatchers(r)
	want, err := readSamples(t.Context(), c.oracle, everything, mint, maxt, matchers...)
	require.NoError(t, err)
	got, err := again(func() (answer, error) {
		return readSamples(t.Context(), c, everything, mint, maxt, matchers...)
	})
	require.NoError(t, err)
	require.Equal(t, want, got, "samples of %s from %d to %d", matchers, mint, maxt)
	got, err = again(func() (answer, error) { return c.readChunks(t.Context(), everything, mint, maxt, matchers...) })
	require.NoError(t, err)
	require.Equal(t, want, got, "chunks of %s from %d to %d", matchers, mint, maxt)
	for _, s := range want {
		found += len(s)
	}
	return found
}

// TestSixIngestersAnswerAsOne: with all zones, with any one away, and one that goes in the middle of answers. Without a
// quorum it is an error, never less.
func TestSixIngestersAnswerAsOne(t *testing.T) {
	r := seeded(t)
	c := newCluster(t)
	c.fill(t, r, 30)
	found := 0
	for range 6 {
		found += c.compare(t, r)
	}
	require.Positive(t, found)

	for z := range zones {
		away := c.zone(z)[r.IntN(each)]
		var stopping sync.WaitGroup
		stopping.Go(away.stop) // in the middle of answers, or between them
		c.compare(t, r)
		stopping.Wait()
		c.compare(t, r)
		if z == 1 {
			other := c.zone(2)[r.IntN(each)]
			other.stop()
			_, err := again(func() (answer, error) {
				return readSamples(t.Context(), c, everything, begin, now.UnixMilli(), randomMatchers(r)...)
			})
			require.Equal(t, errkind.Unavailable, errkind.Of(err), "%v", err)
			require.ErrorContains(t, err, "zone-b")
			require.ErrorContains(t, err, "zone-c")
			other.serve(t)
		}
		away.serve(t)
		require.Eventually(t, func() bool { // connections are made again
			_, err := c.client.Reader(away.address, away.storage()).Plan(t.Context(), tenantID, everything, begin, begin+1)
			return err == nil
		}, 10*time.Second, 10*time.Millisecond)
	}
}

// TestLabelsAndExtrasOfSixIngesters are the union of what a quorum has.
func TestLabelsAndExtrasOfSixIngesters(t *testing.T) {
	c := newCluster(t)
	t0 := now.UnixMilli()
	var entries []entry
	for n := range 60 {
		entries = append(entries, entry{
			lset:   labels.FromStrings("__name__", "x", "i", fmt.Sprintf("%03d", n), fmt.Sprintf("name%d", n%7), "y"),
			floats: []duramenpb.Float{{T: t0, V: 1}}, skip: n%(zones+1) - 1,
			exemplars: []duramenpb.Exemplar{{T: t0, V: 2, Labels: labels.FromStrings("trace_id", fmt.Sprint(n))}},
		})
	}
	c.write(t, entries, duramenpb.Metadata{Family: "x", Type: "gauge", Help: "an x"})
	for z := -1; z < zones; z++ {
		if z >= 0 {
			c.zone(z)[0].stop()
		}
		q, _, err := c.Querier(t.Context(), tenantID, everything, begin, t0)
		require.NoError(t, err)
		own, _, err := c.oracle.Querier(t.Context(), tenantID, everything, begin, t0)
		require.NoError(t, err)
		t.Cleanup(func() { _, _ = q.Close(), own.Close() }) // if the test fails
		for _, matchers := range [][]*labels.Matcher{nil, {labels.MustNewMatcher(labels.MatchRegexp, "i", "00.*")}} {
			want, _, err := own.LabelValues(t.Context(), "i", nil, matchers...)
			require.NoError(t, err)
			got, _, err := q.LabelValues(t.Context(), "i", nil, matchers...)
			require.NoError(t, err)
			require.Equal(t, want, got)
			want, _, err = own.LabelNames(t.Context(), nil, matchers...)
			require.NoError(t, err)
			got, _, err = q.LabelNames(t.Context(), nil, matchers...)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
		require.NoError(t, q.Close())
		require.NoError(t, own.Close())
		name := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "x")}
		want, err := c.oracle.Exemplars(t.Context(), tenantID, 0, t0, name)
		require.NoError(t, err)
		got, err := c.Exemplars(t.Context(), tenantID, 0, t0, name)
		require.NoError(t, err)
		require.Equal(t, want, got)
		metadata, err := c.Metadata(t.Context(), tenantID, "")
		require.NoError(t, err)
		require.Equal(t, []duramenpb.Metadata{{Family: "x", Type: "gauge", Help: "an x"}}, metadata)
		if z >= 0 {
			c.zone(z)[0].serve(t)
			require.Eventually(t, func() bool {
				_, err := c.client.Reader(c.zone(z)[0].address, "").Plan(t.Context(), tenantID, everything, begin, begin+1)
				return err == nil
			}, 10*time.Second, 10*time.Millisecond)
		}
	}
}
