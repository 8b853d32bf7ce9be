package reader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/samplemerge"
)

const tenantID = "t1"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var nopLog = slog.New(slog.DiscardHandler)

// fixture is a set of blocks, on local disk for the reference and in a bucket for the reader.
type fixture struct {
	bkt    *bucket.InMemory
	local  []*tsdb.Block
	blocks []manifest.Block
}

// writeBlock writes a block with random samples in [mint, maxt). Values are from a small set, so that overlapping
// blocks agree about some samples and conflict about others.
func writeBlock(t testing.TB, r *rand.Rand, dir string, series int, mint, maxt, step int64) string {
	t.Helper()
	w, err := tsdb.NewBlockWriter(nopLog, dir, 1<<40)
	require.NoError(t, err)
	defer func() { require.NoError(t, w.Close()) }()
	for i := range series {
		if r.IntN(4) == 0 && series > 3 {
			continue
		}
		lset := labels.FromStrings(labels.MetricName, fmt.Sprintf("m%d", i%4), "i", fmt.Sprint(i), "mod", fmt.Sprint(i%3))
		app := w.AppenderV2(t.Context())
		for ts := mint; ts < maxt; ts += step {
			if r.IntN(10) == 0 {
				continue
			}
			var (
				v  float64
				h  *histogram.Histogram
				fh *histogram.FloatHistogram
			)
			n := int(ts/step) + r.IntN(2)
			switch i % 4 {
			case 2:
				h = tsdbutil.GenerateTestHistogram(int64(n))
			case 3:
				fh = tsdbutil.GenerateTestFloatHistogram(int64(n))
			default:
				if v = float64(n); r.IntN(20) == 0 {
					v = math.Float64frombits(value.StaleNaN)
				}
			}
			_, err := app.Append(0, lset, 0, ts, v, h, fh, storage.AOptions{})
			require.NoError(t, err)
		}
		require.NoError(t, app.Commit())
	}
	id, err := w.Flush(t.Context())
	require.NoError(t, err)
	return filepath.Join(dir, id.String())
}

func (f *fixture) add(t testing.TB, dir string) {
	t.Helper()
	b, err := tsdb.OpenBlock(nopLog, dir, nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	f.local = append(f.local, b)
	uploaded, err := block.Upload(t.Context(), f.bkt, tenantID, dir, "test")
	require.NoError(t, err)
	f.blocks = append(f.blocks, uploaded)
}

// randomFixture has one to five blocks that may overlap.
func randomFixture(t testing.TB, r *rand.Rand) *fixture {
	t.Helper()
	f, dir := &fixture{bkt: bucket.NewInMemory()}, t.TempDir()
	for range 1 + r.IntN(5) {
		mint := int64(r.IntN(10)) * 1000
		f.add(t, writeBlock(t, r, dir, 4+r.IntN(12), mint, mint+1000+int64(r.IntN(4000)), 30))
	}
	return f
}

func (f *fixture) reader(t testing.TB, bkt bucket.Bucket) *Reader {
	t.Helper()
	r, err := New(Config{IndexCacheBytes: 1 << 20}, bkt, nopLog, nil)
	require.NoError(t, err)
	return r
}

// reference reads the same blocks from local disk with Prometheus' own reader.
func (f *fixture) reference(t testing.TB, mint, maxt int64) storage.Querier {
	t.Helper()
	var qs []storage.Querier
	for _, b := range f.local {
		if b.OverlapsClosedInterval(mint, maxt) {
			q, err := tsdb.NewBlockQuerier(b, mint, maxt)
			require.NoError(t, err)
			qs = append(qs, q)
		}
	}
	return storage.NewMergeQuerier(qs, nil, samplemerge.Series)
}

func randomMatchers(r *rand.Rand) []*labels.Matcher {
	all := []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, fmt.Sprintf("m%d", r.IntN(5))),
		labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, "m[0-2]"),
		labels.MustNewMatcher(labels.MatchNotEqual, "mod", "1"),
		labels.MustNewMatcher(labels.MatchRegexp, "i", "1.*|2"),
		labels.MustNewMatcher(labels.MatchNotRegexp, "i", ".*3"),
		labels.MustNewMatcher(labels.MatchEqual, "absent", ""),
		labels.MustNewMatcher(labels.MatchRegexp, "mod", ".+"),
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:1+r.IntN(3)]
}

// dump is everything that a reader can see of a series set, and its error.
func dump(set storage.SeriesSet) (string, error) {
	var (
		b  strings.Builder
		it chunkenc.Iterator
	)
	for set.Next() {
		s := set.At()
		fmt.Fprintln(&b, s.Labels())
		it = s.Iterator(it)
		dumpSamples(&b, it, true)
		if err := it.Err(); err != nil {
			return b.String(), err
		}
	}
	return b.String(), set.Err()
}

func dumpSamples(b *strings.Builder, it chunkenc.Iterator, hints bool) {
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		switch typ {
		case chunkenc.ValHistogram:
			t, h := it.AtHistogram(nil)
			if !hints {
				h.CounterResetHint = 0
				h = h.Compact(0)
			}
			fmt.Fprintln(b, t, "h", h.CounterResetHint, math.Float64bits(h.Sum), h)
		case chunkenc.ValFloatHistogram:
			t, h := it.AtFloatHistogram(nil)
			if !hints {
				h.CounterResetHint = 0
				h = h.Compact(0)
			}
			fmt.Fprintln(b, t, "fh", h.CounterResetHint, math.Float64bits(h.Sum), h)
		default:
			t, v := it.At()
			fmt.Fprintf(b, "%d %016x\n", t, math.Float64bits(v))
		}
	}
}

func dumpWithoutHints(t testing.TB, set storage.SeriesSet) string {
	t.Helper()
	var b strings.Builder
	for set.Next() {
		fmt.Fprintln(&b, set.At().Labels())
		it := set.At().Iterator(nil)
		dumpSamples(&b, it, false)
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	return b.String()
}

func dumpChunks(t testing.TB, set storage.ChunkSeriesSet) string {
	t.Helper()
	var b strings.Builder
	for set.Next() {
		fmt.Fprintln(&b, set.At().Labels())
		it := set.At().Iterator(nil)
		for it.Next() {
			dumpSamples(&b, it.At().Chunk.Iterator(nil), false)
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	return b.String()
}

var errInjected = errors.New("injected fault")

// faultyBucket breaks the nth read in one of several ways, and again those that follow.
type faultyBucket struct {
	bucket.Bucket
	mu    sync.Mutex
	left  int
	again int
	how   string
}

var faults = []string{"fail", "missing", "cut body", "short object", "flipped bit", "slow death"}

func (f *faultyBucket) strike() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left--
	return f.left <= 0 && f.left >= -f.again
}

func (f *faultyBucket) spoil(rc io.ReadCloser, err error) (io.ReadCloser, error) {
	if err != nil || !f.strike() {
		return rc, err
	}
	defer rc.Close()
	switch f.how {
	case "fail":
		return nil, errInjected
	case "missing":
		return nil, fmt.Errorf("get: %w", bucket.ErrNotFound)
	}
	data, err := io.ReadAll(rc)
	if err != nil {
		return nil, err
	}
	half := io.Reader(bytes.NewReader(data[:len(data)/2]))
	switch f.how {
	case "cut body":
		return io.NopCloser(io.MultiReader(half, brokenReader{io.ErrUnexpectedEOF})), nil
	case "slow death":
		return io.NopCloser(io.MultiReader(half, brokenReader{errInjected})), nil
	case "short object":
		return io.NopCloser(half), nil
	default:
		if len(data) > 0 {
			data = slices.Clone(data)
			data[len(data)/3] ^= 0x10
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	}
}

type brokenReader struct{ err error }

func (b brokenReader) Read([]byte) (int, error) { return 0, b.err }

func (f *faultyBucket) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	return f.spoil(f.Bucket.Get(ctx, key))
}

func (f *faultyBucket) GetRange(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	return f.spoil(f.Bucket.GetRange(ctx, key, off, n))
}

// countingBucket counts reads by the last two parts of the key and can hold them back.
type countingBucket struct {
	bucket.Bucket
	mu    sync.Mutex
	reads map[string]int
	gate  chan struct{} // nil: open
}

func newCountingBucket(b bucket.Bucket) *countingBucket {
	return &countingBucket{Bucket: b, reads: map[string]int{}}
}

func (c *countingBucket) count(kind string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reads[kind]
}

func (c *countingBucket) note(ctx context.Context, kind string) error {
	c.mu.Lock()
	c.reads[kind]++
	gate := c.gate
	c.mu.Unlock()
	if gate == nil {
		return nil
	}
	select {
	case <-gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *countingBucket) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	if err := c.note(ctx, "get"); err != nil {
		return nil, err
	}
	return c.Bucket.Get(ctx, key)
}

func (c *countingBucket) GetRange(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := c.note(ctx, "range"); err != nil {
		return nil, err
	}
	return c.Bucket.GetRange(ctx, key, off, n)
}

func missingID() ulid.ULID { return ulid.MustNew(1, bytes.NewReader(make([]byte, 10))) }
