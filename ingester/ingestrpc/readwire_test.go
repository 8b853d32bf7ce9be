package ingestrpc

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/ingester"
	"github.com/duramendb/duramen/internal/peerconn"
	"github.com/duramendb/duramen/internal/rpcframe"
	"github.com/duramendb/duramen/internal/samplemerge"
	"github.com/duramendb/duramen/tenant"
)

// wire is a server of an ingester on a port of loopback, and a client of it.
type wire struct {
	*Reader

	client  *ReadClient
	server  *ReadServer
	grpc    *grpc.Server
	address string
	metrics *prometheus.Registry // of both
}

// defaultServer and defaultClient are the settings of tests; a call that hangs fails a test after seconds.
func defaultServer() ReadServerConfig {
	return ReadServerConfig{MaxConcurrent: 100, StallTimeout: 20 * time.Second}
}

func defaultClient() ReadClientConfig { return ReadClientConfig{SilenceTimeout: 20 * time.Second} }

// wireStorage is the identity of the storage that tests read from.
const wireStorage = "01M7Z96N6BCPS2611PX6YJJ3ZH"

// startWire serves i; change, which may be nil, changes the server before it serves.
func startWire(t testing.TB, i Readable, change func(s *ReadServer)) *wire {
	t.Helper()
	w := &wire{metrics: prometheus.NewRegistry()}
	var err error
	w.server, err = NewReadServer(defaultServer(), i, wireStorage, slog.New(slog.DiscardHandler), w.metrics)
	require.NoError(t, err)
	if change != nil {
		change(w.server)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w.address = l.Addr().String()
	w.grpc = grpc.NewServer(
		grpc.ForceServerCodecV2(rpcframe.Codec{}), grpc.StreamInterceptor(tenant.StreamInterceptor), grpc.WaitForHandlers(true),
	)
	w.server.Register(w.grpc)
	var served sync.WaitGroup
	served.Go(func() { _ = w.grpc.Serve(l) })
	w.client, w.Reader = dialWire(t, w.address, defaultClient(), w.metrics)
	t.Cleanup(func() {
		w.grpc.Stop()
		served.Wait()
		w.server.Wait()
	})
	return w
}

// dialWire returns a client whose connection ends with the test.
func dialWire(t testing.TB, address string, cfg ReadClientConfig, reg prometheus.Registerer) (*ReadClient, *Reader) {
	t.Helper()
	var settings peerconn.Config
	settings.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	pool, err := peerconn.New(settings, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pool.Close()) })
	c, err := NewReadClient(cfg, PoolDial(pool), slog.New(slog.DiscardHandler), reg)
	require.NoError(t, err)
	return c, c.Reader(address, wireStorage)
}

func seeded(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// receivedSet is what a Select gave.
type receivedSet []series

type series struct {
	labels labels.Labels
	chunks []chunks.Meta
}

// readSet reads a set to its end, and the chunks only then, as an engine does.
func readSet(set storage.ChunkSeriesSet) (receivedSet, error) {
	var all []storage.ChunkSeries
	for set.Next() {
		all = append(all, set.At())
	}
	if err := set.Err(); err != nil {
		return nil, err
	}
	var out receivedSet
	var it chunks.Iterator
	for _, s := range all {
		it = s.Iterator(it)
		r := series{labels: s.Labels()}
		for it.Next() {
			r.chunks = append(r.chunks, it.At())
		}
		if err := it.Err(); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// selectAll does a Select and closes it.
func selectAll(ctx context.Context, r interface {
	Select(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64, hints *storage.SelectHints,
		matchers ...*labels.Matcher) (duramenpb.Selection, error)
}, view duramenpb.View, mint, maxt int64, matchers ...*labels.Matcher,
) (receivedSet, duramenpb.Held, error) {
	s, err := r.Select(ctx, "a", view, mint, maxt, nil, matchers...)
	if err != nil {
		return nil, s.Held, err
	}
	defer s.Close()
	set, err := readSet(s.Series)
	return set, s.Held, err
}

func sameSet(t testing.TB, want, got receivedSet) {
	t.Helper()
	require.Len(t, got, len(want))
	for i, w := range want {
		g := got[i]
		require.Equal(t, w.labels.String(), g.labels.String())
		require.Len(t, g.chunks, len(w.chunks), w.labels.String())
		for c := range w.chunks {
			require.Equal(t, w.chunks[c].MinTime, g.chunks[c].MinTime)
			require.Equal(t, w.chunks[c].MaxTime, g.chunks[c].MaxTime)
			require.Equal(t, w.chunks[c].Chunk.Encoding(), g.chunks[c].Chunk.Encoding())
			require.Equal(t, w.chunks[c].Chunk.Bytes(), g.chunks[c].Chunk.Bytes())
		}
	}
}

// point is a sample as text, so that a NaN equals itself.
type point struct {
	t, st int64
	v     string
}

func pointOf(it chunkenc.Iterator, kind chunkenc.ValueType) point {
	p := point{t: it.AtT(), st: it.AtST()}
	switch kind {
	case chunkenc.ValHistogram:
		_, h := it.AtHistogram(nil)
		p.v = fmt.Sprintf("%x %s", math.Float64bits(h.Sum), h)
	case chunkenc.ValFloatHistogram:
		_, h := it.AtFloatHistogram(nil)
		p.v = fmt.Sprintf("%x %s", math.Float64bits(h.Sum), h)
	default:
		_, v := it.At()
		p.v = fmt.Sprintf("%x", math.Float64bits(v))
	}
	return p
}

// samplesOf returns the samples of an iterator with mint ≤ t ≤ maxt.
func samplesOf(t testing.TB, it chunkenc.Iterator, mint, maxt int64) (all []point) {
	t.Helper()
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		if p := pointOf(it, kind); p.t >= mint && p.t <= maxt {
			all = append(all, p)
		}
	}
	require.NoError(t, it.Err())
	return all
}

// mergedSamples returns, by series, the samples of a set as samplemerge makes them of the chunks.
func (r receivedSet) mergedSamples(t testing.TB, mint, maxt int64) map[string][]point {
	t.Helper()
	out := map[string][]point{}
	for _, s := range r {
		var of []storage.Series
		last := int64(math.MinInt64)
		for _, m := range s.chunks {
			require.Greater(t, m.MinTime, last, "chunks of %s are in order and do not overlap", s.labels)
			last = m.MaxTime
			of = append(of, &storage.SeriesEntry{Lset: s.labels, SampleIteratorFn: m.Chunk.Iterator})
		}
		if of == nil {
			continue
		}
		if all := samplesOf(t, samplemerge.Series(of...).Iterator(nil), mint, maxt); len(all) > 0 {
			out[s.labels.String()] = all
		}
	}
	return out
}

// direct returns, by series, the samples that the ingester's own querier gives.
func direct(t testing.TB, i *ingester.Ingester, view duramenpb.View, mint, maxt int64, matchers ...*labels.Matcher) (
	map[string][]point, duramenpb.Held,
) {
	t.Helper()
	q, held, err := i.Querier(t.Context(), "a", view, mint, maxt)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	out := map[string][]point{}
	set := q.Select(t.Context(), true, nil, matchers...)
	for set.Next() {
		if all := samplesOf(t, set.At().Iterator(nil), mint, maxt); len(all) > 0 {
			out[set.At().Labels().String()] = all
		}
	}
	require.NoError(t, set.Err())
	return out, held
}

// fill pushes random samples of all kinds into the tenant "a": some hours in blocks, some of them out of order, the rest in
// the head.
func fill(t testing.TB, i *ingester.Ingester, r *rand.Rand, seriesCount int, startTimes bool) {
	t.Helper()
	end := testStart.UnixMilli()
	begin := end - (6 * time.Hour).Milliseconds()
	lsets := make([]labels.Labels, seriesCount)
	for n := range lsets {
		lsets[n] = labels.FromStrings("__name__", fmt.Sprintf("m%d", n%5), "i", fmt.Sprintf("%04d", n),
			"job", []string{"a", "b", "\xff"}[r.IntN(3)], "z", fmt.Sprint(r.IntN(2)))
	}
	const step = 20 * time.Minute
	for at := begin; at < end; at += step.Milliseconds() {
		if at+step.Milliseconds() >= end { // what is listed and what is not stands still from now on
			_, err := i.Flush(context.Background(), "a", true)
			require.NoError(t, err)
		}
		b := &batch{}
		for n, lset := range lsets {
			from := at
			if r.IntN(8) == 0 { // late
				from = max(begin, at-int64(r.IntN(int((2*time.Hour).Milliseconds()))))
			}
			addSamples(b, r, n, from, startTimes)
			b.end(duramenpb.Series{Labels: lset})
		}
		push(t, i, b)
		if at+step.Milliseconds() < end && r.IntN(6) == 0 {
			_, err := i.Flush(context.Background(), "a", r.IntN(2) == 0)
			require.NoError(t, err)
		}
	}
}

// addSamples adds some samples of the kind of series n.
func addSamples(b *batch, r *rand.Rand, n int, from int64, startTimes bool) {
	st := int64(0)
	if startTimes {
		st = from - 1000
	}
	for s := range 1 + r.IntN(20) {
		at := from + int64(s)*15_000 + int64(n%7)
		switch {
		case n%5 == 3:
			b.Histograms = append(b.Histograms, duramenpb.Histogram{T: at, ST: st, H: tsdbutil.GenerateTestHistogram(at / 1000)})
		case n%5 == 4 && r.IntN(30) == 0:
			h := &histogram.FloatHistogram{Sum: math.Float64frombits(value.StaleNaN)}
			b.Histograms = append(b.Histograms, duramenpb.Histogram{T: at, ST: st, FH: h})
		case n%5 == 4:
			b.Histograms = append(b.Histograms, duramenpb.Histogram{T: at, ST: st, FH: tsdbutil.GenerateTestFloatHistogram(at / 1000)})
		case r.IntN(30) == 0:
			b.Floats = append(b.Floats, duramenpb.Float{T: at, ST: st, V: math.Float64frombits(value.StaleNaN)})
		default:
			b.Floats = append(b.Floats, duramenpb.Float{T: at, ST: st, V: r.NormFloat64()})
		}
	}
}

// randomMatchers are of series that fill makes.
func randomMatchers(r *rand.Rand) []*labels.Matcher {
	all := []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchRegexp, "__name__", "m.*"),
		labels.MustNewMatcher(labels.MatchEqual, "__name__", fmt.Sprintf("m%d", r.IntN(6))),
		labels.MustNewMatcher(labels.MatchNotEqual, "z", "1"),
		labels.MustNewMatcher(labels.MatchNotRegexp, "job", "a|\xff"),
		labels.MustNewMatcher(labels.MatchRegexp, "i", fmt.Sprintf(".*%d", r.IntN(10))),
		labels.MustNewMatcher(labels.MatchEqual, "missing", ""),
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return append(all[:1+r.IntN(2)], anyName())
}

// TestASelectIsWhatTheIngesterHas compares the wire with the ingester: chunks with those of the reader in this process, and
// samples with those of the ingester's own querier.
func TestASelectIsWhatTheIngesterHas(t *testing.T) {
	for _, startTimes := range []bool{false, true} {
		t.Run(fmt.Sprintf("start times %t", startTimes), func(t *testing.T) {
			r := seeded(t)
			i := newIngester(t, startTimes)
			fill(t, i, r, 15, startTimes)
			w := startWire(t, i, nil)
			local := NewLocalReader(i)
			end := testStart.UnixMilli()
			chunkCount := 0
			for range 15 {
				mint := end - int64(r.IntN(int((7 * time.Hour).Milliseconds())))
				maxt := mint + int64(r.IntN(int((4 * time.Hour).Milliseconds())))
				view := duramenpb.View{Version: uint64(r.IntN(4)), Cut: end - int64(r.IntN(int((7 * time.Hour).Milliseconds())))}
				if r.IntN(3) == 0 {
					view = everything
				}
				matchers := randomMatchers(r)
				want, _, err := selectAll(t.Context(), local, view, mint, maxt, matchers...)
				require.NoError(t, err)
				got, held, err := selectAll(t.Context(), w, view, mint, maxt, matchers...)
				require.NoError(t, err)
				sameSet(t, want, got)
				samples, wantHeld := direct(t, i, view, mint, maxt, matchers...)
				require.Equal(t, wantHeld, held)
				require.Equal(t, samples, got.mergedSamples(t, mint, maxt))
				for _, s := range got {
					chunkCount += len(s.chunks)
				}
			}
			require.Greater(t, chunkCount, 50, "the queries find something")
		})
	}
}
