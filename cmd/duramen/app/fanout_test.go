package app

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/ingester"
	"github.com/duramendb/duramen/ingester/ingestrpc"
	"github.com/duramendb/duramen/internal/peerconn"
	"github.com/duramendb/duramen/internal/rpcframe"
	"github.com/duramendb/duramen/querier/fanout"
	"github.com/duramendb/duramen/ring"
	"github.com/duramendb/duramen/tenant"
)

// replicaStart is where a block of two hours begins.
var replicaStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fewLimits are the limits of every tenant.
type fewLimits struct{}

func (fewLimits) Epoch(string) uint64                   { return 0 }
func (fewLimits) MaxSeries(string) int                  { return 0 }
func (fewLimits) MaxMetadata(string) int                { return 100 }
func (fewLimits) MaxExemplars(string) int               { return 100 }
func (fewLimits) OutOfOrderWindow(string) time.Duration { return 6 * time.Hour }

// replicaIngester returns one that was born at replicaStart.
func replicaIngester(t testing.TB) *ingester.Ingester {
	t.Helper()
	objects, log := bucket.NewInMemory(), slog.New(slog.DiscardHandler)
	clock := func() time.Time { return replicaStart }
	i, err := ingester.New(ingester.Config{
		Dir: filepath.Join(t.TempDir(), "ingester"), Writer: "test", WALSync: ingester.SyncInterval, WALCompression: "none",
		MinFreeBytes: 1, IdleTimeout: time.Hour, BlockRetention: 12 * time.Hour, ShipInterval: time.Hour,
	}, objects, manifest.NewOwner(objects, clock, log, nil), fewLimits{}, clock, log, prometheus.NewRegistry())
	require.NoError(t, err)
	s := i.Service()
	require.NoError(t, s.Start(context.Background()))
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	return i
}

// replicas are three ingesters, one a zone, behind gRPC, and one that has everything.
type replicas struct {
	all     *ingester.Ingester
	three   []*ingester.Ingester
	servers []*grpc.Server
	client  *ingestrpc.ReadClient
	ring    *ring.Ring
	fanout  *fanout.Fanout
}

func (r *replicas) Ring() *ring.Ring { return r.ring }

func (r *replicas) Member(m ring.Member) fanout.Member {
	return r.client.Reader(m.Address, m.StorageID)
}

func newReplicas(t testing.TB) *replicas {
	t.Helper()
	r := &replicas{all: replicaIngester(t)}
	log := slog.New(slog.DiscardHandler)
	var server ingestrpc.ReadServerConfig
	server.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	var entries []ring.Entry
	for n := range 3 {
		i := replicaIngester(t)
		reads, err := ingestrpc.NewReadServer(server, i, fmt.Sprint("storage-", n), log, nil)
		require.NoError(t, err)
		g := grpc.NewServer(grpc.ForceServerCodecV2(rpcframe.Codec{}), grpc.StreamInterceptor(tenant.StreamInterceptor),
			grpc.WaitForHandlers(true))
		reads.Register(g)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		var served sync.WaitGroup
		served.Go(func() { _ = g.Serve(l) })
		t.Cleanup(func() {
			g.Stop()
			served.Wait()
			reads.Wait()
		})
		entries = append(entries, ring.MemberEntry(ring.Member{
			ID: fmt.Sprint("ingester-", n), Zone: fmt.Sprint("zone-", n), State: ring.Active, Epoch: 1,
			StorageID: fmt.Sprint("storage-", n), Roles: []ring.Role{ring.RoleIngester}, Address: l.Addr().String(), Seen: time.Now().UnixMilli(),
		}))
		r.three, r.servers = append(r.three, i), append(r.servers, g)
	}
	r.ring = ring.New(ring.Config{}, entries, time.Now())
	var conns peerconn.Config
	conns.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	pool, err := peerconn.New(conns, log, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pool.Close()) })
	var reads ingestrpc.ReadClientConfig
	reads.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	r.client, err = ingestrpc.NewReadClient(reads, ingestrpc.PoolDial(pool), log, nil)
	require.NoError(t, err)
	r.fanout, err = fanout.New(fanout.Config{QuorumWait: 200 * time.Millisecond}, r, r, "zone-0", time.Now, log, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.fanout.Close()) })
	return r
}

// push sends a batch of one sample for each series; those for which skip is true do not get it.
func (r *replicas) push(t testing.TB, ts int64, series int, skip func(replica, series int) bool) {
	t.Helper()
	send := func(i *ingester.Ingester, replica int) {
		b := &duramenpb.Batch{}
		for s := range series {
			if replica >= 0 && skip(replica, s) {
				continue
			}
			if s%5 == 4 {
				b.Histograms = append(b.Histograms, duramenpb.Histogram{T: ts, H: tsdbutil.GenerateTestHistogram(ts / 15_000 % 50)})
			} else {
				b.Floats = append(b.Floats, duramenpb.Float{T: ts, V: float64(ts/15_000*int64(s+1)) / 7})
			}
			b.Series = append(b.Series, duramenpb.Series{
				Labels:    labels.FromStrings("__name__", "m", "i", fmt.Sprintf("%05d", s)),
				FloatsEnd: len(b.Floats), HistogramsEnd: len(b.Histograms),
			})
		}
		var result duramenpb.PushResult
		require.NoError(t, i.Push(context.Background(), "t", b, &result))
		require.Empty(t, result.Refused)
	}
	send(r.all, -1)
	for n, i := range r.three {
		send(i, n)
	}
}

// everySample reads a set to its end, samples behind it as an engine does.
func everySample(set storage.SeriesSet) (string, error) {
	var all []storage.Series
	for set.Next() {
		all = append(all, set.At())
	}
	if err := set.Err(); err != nil {
		return "", err
	}
	var b strings.Builder
	var it chunkenc.Iterator
	for _, s := range all {
		fmt.Fprintln(&b, s.Labels())
		it = s.Iterator(it)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			if typ == chunkenc.ValFloat {
				fmt.Fprintln(&b, it.AtT(), floatAt(it))
				continue
			}
			_, h := it.AtHistogram(nil)
			h.CounterResetHint = histogram.UnknownCounterReset
			fmt.Fprintln(&b, it.AtT(), h)
		}
		if err := it.Err(); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

func floatAt(it chunkenc.Iterator) float64 {
	_, v := it.At()
	return v
}

// TestThreeReplicasAnswerAsOneIngester: of each sample any one replica may be without it.
func TestThreeReplicasAnswerAsOneIngester(t *testing.T) {
	r := newReplicas(t)
	rnd := rand.New(rand.NewPCG(5, 5))
	from := replicaStart.Add(30 * time.Minute).UnixMilli()
	var times []int64
	for n := range int64(240) {
		times = append(times, from+n*15_000)
	}
	for n := 0; n+1 < len(times); n += 7 { // some out of order
		times[n], times[n+1] = times[n+1], times[n]
	}
	for _, ts := range times {
		lossy, missing := rnd.IntN(3) == 0, rnd.IntN(3)
		r.push(t, ts, 20, func(replica, series int) bool { return lossy && (missing+series)%3 == replica })
	}
	view := duramenpb.View{Cut: from - 1000}
	matcher := labels.MustNewMatcher(labels.MatchRegexp, "i", "000[01].")
	answer := func(open func(context.Context, string, duramenpb.View, int64, int64) (
		storage.Querier, duramenpb.Held, error,
	), mint, maxt int64,
	) string {
		q, _, err := open(t.Context(), "t", view, mint, maxt)
		require.NoError(t, err)
		got, err := everySample(q.Select(t.Context(), true, nil, matcher))
		require.NoError(t, err)
		require.NoError(t, q.Close())
		return got
	}
	chunked := func(open func(context.Context, string, duramenpb.View, int64, int64) (
		storage.ChunkQuerier, duramenpb.Held, error,
	), mint, maxt int64,
	) string {
		q, _, err := open(t.Context(), "t", view, mint, maxt)
		require.NoError(t, err)
		got, err := everySample(storage.NewSeriesSetFromChunkSeriesSet(q.Select(t.Context(), true, nil, matcher)))
		require.NoError(t, err)
		require.NoError(t, q.Close())
		return got
	}
	compare := func(what string) {
		for _, span := range [][2]int64{
			{math.MinInt64, math.MaxInt64}, {times[20] + 1, times[200] - 1}, {times[50], times[50]}, {times[230], math.MaxInt64},
		} {
			want := answer(r.all.Querier, span[0], span[1])
			require.NotEmpty(t, want)
			require.Equal(t, want, answer(r.fanout.Querier, span[0], span[1]), what)
			require.Equal(t, want, chunked(r.fanout.ChunkQuerier, span[0], span[1]), what)
		}
	}
	compare("all are there")
	r.servers[0].Stop()
	compare("without the own zone")
	r.servers[2].Stop()
	_, _, err := r.fanout.Querier(t.Context(), "t", view, 0, math.MaxInt64)
	require.ErrorContains(t, err, "ingester-0")
	require.ErrorContains(t, err, "ingester-2")
}

// BenchmarkReplicas compares queries over an hour of recent samples of 1000 series: of an ingester of this process, of
// one behind gRPC, and of three replicas. CPU is that of all of them.
func BenchmarkReplicas(b *testing.B) {
	r := newReplicas(b)
	from := replicaStart.Add(time.Minute).UnixMilli()
	for n := range int64(240) {
		r.push(b, from+n*15_000, 1000, func(int, int) bool { return false })
	}
	view := duramenpb.View{Cut: from - 1000}
	matcher := labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "m")
	one := ring.New(ring.Config{ReplicationFactor: 1}, r.ring.All()[:1], time.Now())
	single, err := fanout.New(fanout.Config{}, &replicas{ring: one, client: r.client}, &replicas{client: r.client}, "",
		time.Now, slog.New(slog.DiscardHandler), nil)
	require.NoError(b, err)
	defer func() { require.NoError(b, single.Close()) }()
	for name, open := range map[string]func(context.Context, string, duramenpb.View, int64, int64) (
		storage.Querier, duramenpb.Held, error,
	){"in process": r.all.Querier, "one ingester": single.Querier, "three replicas": r.fanout.Querier} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			began := cpuSeconds(b)
			for b.Loop() {
				q, _, err := open(b.Context(), "t", view, from, math.MaxInt64)
				require.NoError(b, err)
				set := q.Select(b.Context(), true, nil, matcher)
				var all []storage.Series
				for set.Next() {
					all = append(all, set.At())
				}
				require.NoError(b, set.Err())
				var it chunkenc.Iterator
				samples := 0
				for _, s := range all {
					for it = s.Iterator(it); it.Next() != chunkenc.ValNone; samples++ {
					}
				}
				require.Equal(b, 240_000, samples)
				require.NoError(b, q.Close())
			}
			b.ReportMetric((cpuSeconds(b)-began)*1e3/float64(b.N), "CPU-ms/query")
		})
	}
}

func cpuSeconds(t testing.TB) float64 {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}
