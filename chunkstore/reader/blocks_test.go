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
	"sync/atomic"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	tsdbindex "github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/budget"
	"github.com/duramendb/duramen/chunkstore/cache"
	"github.com/duramendb/duramen/chunkstore/index"
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

// setup is a Reader over a Local.
type setup struct {
	*Reader
	local    *Local
	pool     *budget.Pool
	sidecars *testSidecars
	disk     *cache.Disk
}

// reader returns a Reader of the fixture's blocks by way of bkt. What it holds is checked when the test ends.
func (f *fixture) reader(t testing.TB, bkt bucket.Bucket, change ...func(*setting)) *setup {
	t.Helper()
	o := setting{pages: 64 << 20, directories: 64 << 20, parallel: 8, pool: budget.PoolConfig{Bytes: 64 << 20}}
	for _, c := range change {
		c(&o)
	}
	s := &setup{disk: o.disk, pool: budget.NewPool(o.pool, nil), sidecars: &testSidecars{bkt: bkt}}
	cfg := Config{DirectoryCacheBytes: o.directories, PageCacheBytes: o.pages, ParallelBlocks: o.parallel}
	var err error
	s.local, err = NewLocal(cfg, bkt, s.sidecars, o.disk, s.pool, o.limits, nopLog, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, s.local.Close())
		all, ok := s.pool.TryAcquire(s.pool.QueryBytes())
		require.True(t, ok, "all memory was given back")
		all()
	})
	s.Reader, err = New(cfg, s.local, nopLog, nil)
	require.NoError(t, err)
	return s
}

type setting struct {
	directories, pages int64
	parallel           int
	pool               budget.PoolConfig
	disk               *cache.Disk
	limits             testLimits
}

// testLimits are the same for all tenants.
type testLimits struct {
	series int
	bytes  int64
}

func (l testLimits) MaxFetchedSeriesPerQuery(string) int       { return l.series }
func (l testLimits) MaxFetchedChunkBytesPerQuery(string) int64 { return l.bytes }

// testSidecars builds a sidecar from a block's index each time that it is asked.
type testSidecars struct {
	bkt   bucket.Bucket
	calls atomic.Int64
}

func (s *testSidecars) Ensure(ctx context.Context, tenant string, b manifest.Block) (SidecarInfo, error) {
	s.calls.Add(1)
	data, err := readObject(ctx, s.bkt, block.Key(tenant, b.ULID, block.IndexName))
	if err != nil {
		return SidecarInfo{}, err
	}
	ix, err := tsdbindex.NewReader(byteSlice(data), tsdbindex.DecodePostingsRaw)
	if err != nil {
		return SidecarInfo{}, err
	}
	var segments []int64
	for n := 1; ; n++ {
		is, err := s.bkt.Stat(ctx, block.Key(tenant, b.ULID, block.SegmentName(n)))
		if errors.Is(err, bucket.ErrNotFound) {
			break
		}
		if err != nil {
			return SidecarInfo{}, err
		}
		segments = append(segments, is.Size)
	}
	var out bytes.Buffer
	size, directory, err := index.Build(ctx, &out, ix, b.MinTime, b.MaxTime, segments)
	if err != nil {
		return SidecarInfo{}, err
	}
	return SidecarInfo{size, directory}, s.bkt.Put(ctx, sidecarKey(tenant, b.ULID), &out, size)
}

// byteSlice is a []byte as the TSDB's index reader wants it.
type byteSlice []byte

func (b byteSlice) Len() int                    { return len(b) }
func (b byteSlice) Range(start, end int) []byte { return b[start:end] }

func readObject(ctx context.Context, bkt bucket.Bucket, key string) ([]byte, error) {
	body, err := bkt.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
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

// smallFixture has two blocks that overlap.
func smallFixture(t testing.TB, r *rand.Rand) *fixture {
	t.Helper()
	f, dir := &fixture{bkt: bucket.NewInMemory()}, t.TempDir()
	for n := range int64(2) {
		f.add(t, writeBlock(t, r, dir, 5, n*500, n*500+1000, 50))
	}
	return f
}

// answer is all that the blocks hold, by the reference.
func (f *fixture) answer(t testing.TB) string {
	t.Helper()
	q := f.reference(t, 0, math.MaxInt64)
	out, err := dump(q.Select(t.Context(), true, nil, everything))
	require.NoError(t, err)
	require.NoError(t, q.Close())
	return out
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

// faultyBucket breaks the nth read in one of several ways, and again those of the same object that follow.
type faultyBucket struct {
	bucket.Bucket
	mu    sync.Mutex
	left  int
	again int
	how   string
	// struck is the key of the read that was spoiled first.
	struck string
}

var faults = []string{"fail", "missing", "cut body", "short object", "flipped bit", "slow death"}

func (f *faultyBucket) strike(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left--
	switch {
	case f.left == 0:
		f.struck = key
		return true
	case f.left < 0 && key == f.struck && f.again > 0: // blocks are read at the same time, and others' reads come between
		f.again--
		return true
	}
	return false
}

func (f *faultyBucket) spoil(key string, rc io.ReadCloser, err error) (io.ReadCloser, error) {
	if err != nil || !f.strike(key) {
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
	rc, err := f.Bucket.Get(ctx, key)
	return f.spoil(key, rc, err)
}

func (f *faultyBucket) GetRange(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	rc, err := f.Bucket.GetRange(ctx, key, off, n)
	return f.spoil(key, rc, err)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func readAll(t testing.TB, b bucket.Bucket, key string) []byte {
	t.Helper()
	data, err := readObject(t.Context(), b, key)
	require.NoError(t, err)
	return data
}

func put(t testing.TB, b bucket.Bucket, key string, data []byte) {
	t.Helper()
	require.NoError(t, b.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))))
}

func missingID() ulid.ULID { return ulid.MustNew(1, bytes.NewReader(make([]byte, 10))) }
