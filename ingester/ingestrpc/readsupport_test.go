package ingestrpc

import (
	"context"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/ingester"
)

// noLimits are the limits of every tenant.
type noLimits struct{}

func (noLimits) Epoch(string) uint64                   { return 0 }
func (noLimits) MaxSeries(string) int                  { return 0 }
func (noLimits) MaxMetadata(string) int                { return 10_000 }
func (noLimits) MaxExemplars(string) int               { return 10_000 }
func (noLimits) OutOfOrderWindow(string) time.Duration { return 6 * time.Hour }

// listing is a manifest in memory.
type listing struct {
	mu sync.Mutex
	m  map[string]*manifest.Manifest
}

func (*listing) Lost(context.Context, string, manifest.LostRange) error { return nil }

func (c *listing) Current(_ context.Context, tenant string) (*manifest.Manifest, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.m[tenant]; m != nil {
		return m, nil
	}
	return &manifest.Manifest{Tenant: tenant}, nil
}

func (c *listing) Add(_ context.Context, tenant string, b manifest.Block) (manifest.Added, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := &manifest.Manifest{Tenant: tenant, Version: 1}
	if m := c.m[tenant]; m != nil {
		next.Version, next.Blocks = m.Version+1, slices.Clone(m.Blocks)
	}
	b.AddedVersion = next.Version
	next.Blocks = append(next.Blocks, b)
	c.m[tenant] = next
	return manifest.Added{Version: next.Version}, nil
}

// testStart is where a block of two hours begins.
var testStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// newIngester returns one that serves, whose clock stands at testStart.
func newIngester(t testing.TB, startTimestamps bool) *ingester.Ingester {
	t.Helper()
	i, err := ingester.New(ingester.Config{
		Dir: filepath.Join(t.TempDir(), "ingester"), Writer: "test", WALSync: ingester.SyncInterval, WALCompression: "none",
		MinFreeBytes: 1, IdleTimeout: time.Hour, BlockRetention: 12 * time.Hour, ShipInterval: time.Hour,
		StartTimestamps: startTimestamps,
	}, bucket.NewInMemory(), &listing{m: map[string]*manifest.Manifest{}}, noLimits{},
		func() time.Time { return testStart }, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	s := i.Service()
	require.NoError(t, s.Start(context.Background()))
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	return i
}

// everything is a view that leaves all to the ingester.
var everything = duramenpb.View{Cut: math.MinInt64}

// batch builds a Batch.
type batch struct{ duramenpb.Batch }

// floats adds a series with samples at the given milliseconds, all of value v.
func (b *batch) floats(lset labels.Labels, v float64, ts ...int64) *batch {
	for _, t := range ts {
		b.Floats = append(b.Floats, duramenpb.Float{T: t, V: v})
	}
	return b.end(duramenpb.Series{Labels: lset})
}

func (b *batch) end(s duramenpb.Series) *batch {
	s.FloatsEnd, s.HistogramsEnd, s.ExemplarsEnd = len(b.Floats), len(b.Histograms), len(b.Exemplars)
	b.Series = append(b.Series, s)
	return b
}

// push sends a batch for the tenant "a".
func push(t testing.TB, i *ingester.Ingester, b *batch) *duramenpb.PushResult {
	t.Helper()
	r := &duramenpb.PushResult{}
	require.NoError(t, i.Push(context.Background(), "a", &b.Batch, r))
	return r
}

func anyName() *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, ".+")
}

// timesOf reads a set to its end and returns the times of the samples by series.
func timesOf(t testing.TB, set storage.ChunkSeriesSet) map[string][]int64 {
	t.Helper()
	out := map[string][]int64{}
	for set.Next() {
		var ts []int64
		for it := set.At().Iterator(nil); it.Next(); {
			for s := it.At().Chunk.Iterator(nil); s.Next() != chunkenc.ValNone; {
				ts = append(ts, s.AtT())
			}
		}
		out[set.At().Labels().String()] = ts
	}
	require.NoError(t, set.Err())
	return out
}
