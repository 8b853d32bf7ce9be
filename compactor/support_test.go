package compactor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor/merge"
	"github.com/duramendb/duramen/compactor/plan"
)

const slotMillis = int64(2 * time.Hour / time.Millisecond)

// world is one compactor over a bucket. Its blocks are entries of manifests alone: its merger makes entries of entries.
type world struct {
	*Compactor

	t      *testing.T
	bkt    bucket.Bucket
	owner  *manifest.Owner
	limits *fakeLimits
	others *fakeCluster
	merger *fakeMerger
	reg    *prometheus.Registry
}

// newWorld starts nothing.
func newWorld(t *testing.T, bkt bucket.Bucket) *world {
	w := &world{
		t: t, bkt: bkt, limits: &fakeLimits{}, others: &fakeCluster{}, reg: prometheus.NewRegistry(),
		owner: manifest.NewOwner(bkt, time.Now, slog.New(slog.DiscardHandler), nil),
	}
	cfg := Config{
		Dir: t.TempDir(), Writer: manifest.CompactorWriter + "test", Concurrency: 1, Interval: 5 * time.Minute,
		MaxIndexBytes: plan.DefaultMaxIndexBytes, DeletionDelay: time.Hour,
	}
	var err error
	w.Compactor, err = New(cfg, bkt, w.owner, w.limits, w.others, time.Now, slog.New(slog.DiscardHandler), w.reg)
	require.NoError(t, err)
	w.merger = &fakeMerger{}
	w.Compactor.merger, w.Compactor.salvager = w.merger, hopeless{}
	return w
}

// start runs the compactor until the test ends.
func (w *world) start() {
	s := w.Service()
	require.NoError(w.t, s.Start(w.t.Context()))
	w.t.Cleanup(func() { require.NoError(w.t, s.Stop()) })
}

// add lists blocks that an ingester has shipped: so many copies of each slot from mint to maxt.
func (w *world) add(tenantID string, copies int, mint, maxt time.Time) {
	for slot := mint.UnixMilli(); slot < maxt.UnixMilli(); slot += slotMillis {
		for i := range copies {
			b := manifest.Block{
				ULID: newULID(slot + slotMillis), MinTime: slot, MaxTime: slot + slotMillis, Level: 1, Series: 10, Samples: 1000,
				Chunks: 10, SizeBytes: 10_000, Writer: fmt.Sprintf("ingester/%d", i),
			}
			b.Sources = []ulid.ULID{b.ULID}
			_, err := w.owner.Add(w.t.Context(), tenantID, b)
			require.NoError(w.t, err)
		}
	}
}

// addAtOnce is add while nobody looks, so that a plan has all of the blocks or none.
func (w *world) addAtOnce(tenantID string, copies int, mint, maxt time.Time) {
	w.mu.Lock()
	turn := w.tenant(tenantID).turn
	w.mu.Unlock()
	turn <- struct{}{}
	w.add(tenantID, copies, mint, maxt)
	<-turn
}

func newULID(at int64) ulid.ULID {
	id := ulid.ULID{}
	if err := id.SetTime(uint64(at)); err != nil {
		panic(err)
	}
	for i := 6; i < len(id); i++ {
		id[i] = byte(rand.Uint32())
	}
	return id
}

func (w *world) manifest(tenantID string) *manifest.Manifest {
	m, err := w.owner.Refresh(w.t.Context(), tenantID)
	require.NoError(w.t, err)
	return m
}

func (w *world) status(tenantID string) TenantStatus {
	s, ok := w.TenantStatus(tenantID)
	require.True(w.t, ok, "the tenant is not known")
	return s
}

// spans are the ranges of the listed blocks, in slots of the first day.
func spans(m *manifest.Manifest) (all [][2]int64) {
	for _, b := range m.Blocks {
		all = append(all, [2]int64{b.MinTime / slotMillis, b.MaxTime / slotMillis})
	}
	return all
}

type fakeLimits struct {
	mu        sync.Mutex
	retention map[string]time.Duration
}

func (l *fakeLimits) RetentionPeriod(tenantID string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.retention[tenantID]
}

func (l *fakeLimits) setRetention(tenantID string, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retention = map[string]time.Duration{tenantID: d}
}

func (l *fakeLimits) OutOfOrderWindow(string) time.Duration { return 3 * time.Hour }

// fakeCluster is a cluster in which all has been shipped.
type fakeCluster struct {
	mu    sync.Mutex
	moved map[string]bool
}

func (c *fakeCluster) Owner(tenantID string) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.moved[tenantID] {
		return "compactor-2 at 10.0.0.2:9009", false
	}
	return "", true
}

func (c *fakeCluster) move(tenantID string, away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moved = map[string]bool{tenantID: away}
}

func (c *fakeCluster) ShippedUpTo() int64 { return time.Now().UnixMilli() }

func (c *fakeCluster) Replicas() int { return 3 }

// fakeMerger makes the entry of the output, unless fault says otherwise.
type fakeMerger struct {
	mu    sync.Mutex
	fault func(ctx context.Context, tenantID string, job merge.Job) error
	jobs  []merge.Job
}

func (f *fakeMerger) setFault(fault func(ctx context.Context, tenantID string, job merge.Job) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

func (f *fakeMerger) done() []merge.Job {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.jobs)
}

func (f *fakeMerger) Merge(
	ctx context.Context, tenantID string, job merge.Job, _ *merge.Progress,
) (*merge.Result, error) {
	f.mu.Lock()
	f.jobs = append(f.jobs, job)
	fault := f.fault
	f.mu.Unlock()
	if fault != nil {
		if err := fault(ctx, tenantID, job); err != nil {
			return nil, err
		}
	}
	b := manifest.Block{
		ULID: job.ULID, MinTime: job.MinTime, MaxTime: job.MaxTime, Level: job.Level, Writer: job.Writer,
		Labels: job.Labels, Shard: job.Shard, Deleted: job.DeletedThrough, Series: 10, Chunks: 10, SizeBytes: 10_000,
	}
	for _, in := range job.Inputs {
		b.Sources = append(b.Sources, in.Block.Sources...)
		b.Samples = max(b.Samples, in.Block.Samples)
	}
	slices.SortFunc(b.Sources, func(a, b ulid.ULID) int { return a.Compare(b) })
	return &merge.Result{Block: b, OutputSamples: b.Samples}, nil
}

// hopeless can salvage nothing.
type hopeless struct{}

func (hopeless) Salvage(context.Context, *manifest.Manifest, manifest.Block, error) error {
	return errors.New("nothing is readable")
}
