package bucket

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// stubborn is a store that fails where it is told to, and takes a second for everything.
type stubborn struct {
	Bucket

	clock *clock
	err   error // of Delete, and of bodies at their end
}

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newStubborn() *stubborn {
	return &stubborn{NewInMemory(), &clock{time.Unix(1_800_000_000, 0)}, nil}
}

func (s *stubborn) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	s.clock.t = s.clock.t.Add(time.Second)
	r, err := s.Bucket.Get(ctx, key)
	if err == nil && s.err != nil {
		r = io.NopCloser(io.MultiReader(r, failing{s.err}))
	}
	return r, err
}

func (s *stubborn) Delete(ctx context.Context, keys ...string) error {
	s.clock.t = s.clock.t.Add(time.Second)
	if s.err != nil {
		return s.err
	}
	return s.Bucket.Delete(ctx, keys...)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func put(t *testing.T, b Bucket, key, data string) {
	t.Helper()
	require.NoError(t, b.Put(t.Context(), key, strings.NewReader(data), int64(len(data))))
}

func read(t *testing.T, b Bucket, key string) ([]byte, error) {
	t.Helper()
	r, err := b.Get(t.Context(), key)
	require.NoError(t, err)
	data, err := io.ReadAll(r)
	require.NoError(t, r.Close())
	require.NoError(t, r.Close(), "a second close counts nothing")
	return data, err
}

const (
	someIndex    = "t/01KAH2V5X4S3P8Y4QW4Q5B6Z7C/index"
	someManifest = "t/duramen/manifest/00000000000000000001"
)

func TestInstrument(t *testing.T) {
	reg, faulty := prometheus.NewRegistry(), newStubborn()
	b := instrument(faulty, faulty.clock.now, reg)
	put(t, b, someIndex, "0123456789")
	_, err := read(t, b, someIndex)
	require.NoError(t, err)
	r, err := b.GetRange(t.Context(), someIndex, 2, 3)
	require.NoError(t, err)
	_, err = r.Read(make([]byte, 100))
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.NoError(t, b.PutIfAbsent(t.Context(), someManifest, []byte("1234")))
	require.ErrorIs(t, b.PutIfAbsent(t.Context(), someManifest, nil), ErrExists)
	_, err = b.Stat(t.Context(), "~duramen/health")
	require.ErrorIs(t, err, ErrNotFound)
	enough := errors.New("enough")
	require.ErrorIs(t, b.List(t.Context(), "t/", true, func(Object) error { return enough }), enough)
	faulty.err = errors.New("broken")
	require.ErrorIs(t, b.Delete(t.Context(), someIndex, someManifest), faulty.err)
	_, err = read(t, b, someManifest)
	require.ErrorIs(t, err, faulty.err)

	compare := func(names []string, want string) {
		t.Helper()
		require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(want), names...))
	}
	compare([]string{"duramen_bucket_operations_total"}, `
# HELP duramen_bucket_operations_total Operations asked of the object store; a rise without a rise in load means that caches miss.
# TYPE duramen_bucket_operations_total counter
duramen_bucket_operations_total{kind="index",operation="get"} 1
duramen_bucket_operations_total{kind="index",operation="get_range"} 1
duramen_bucket_operations_total{kind="index",operation="put"} 1
duramen_bucket_operations_total{kind="manifest",operation="get"} 1
duramen_bucket_operations_total{kind="manifest",operation="put_if_absent"} 2
duramen_bucket_operations_total{kind="other",operation="delete"} 1
duramen_bucket_operations_total{kind="other",operation="list"} 1
duramen_bucket_operations_total{kind="other",operation="stat"} 1
`)
	value := func(v counterVecs, labels ...string) []float64 {
		return []float64{
			testutil.ToFloat64(v.operations.WithLabelValues(labels...)), testutil.ToFloat64(v.failures.WithLabelValues(labels...)),
			testutil.ToFloat64(v.seconds.WithLabelValues(labels...)), testutil.ToFloat64(v.bytes.WithLabelValues(labels...)),
		}
	}
	byKind, byTenant := b.m.vecs, b.m.tenants.vecs
	require.Equal(t, []float64{1, 0, 1, 10}, value(byKind, "get", "index"))
	require.Equal(t, []float64{1, 1, 1, 4}, value(byKind, "get", "manifest"), "an error in the body")
	require.Equal(t, []float64{1, 1, 1, 0}, value(byKind, "delete", "other"))
	require.Equal(t, []float64{1, 0, 0, 0}, value(byKind, "stat", "other"), "a missing object is no failure")
	require.Equal(t, []float64{2, 0, 0, 4}, value(byKind, "put_if_absent", "manifest"))
	require.Equal(t, []float64{1, 0, 0, 3}, value(byKind, "get_range", "index"))
	require.Equal(t, []float64{2, 1, 2, 14}, value(byTenant, "t", "get"))
	require.Equal(t, []float64{1, 0, 0, 10}, value(byTenant, "t", "put"))
	require.Equal(t, 7, testutil.CollectAndCount(reg, "duramen_bucket_operation_duration_seconds"))
}

// TestAnyoneMayAskForATenant: names that nothing was stored under get no series.
func TestAnyoneMayAskForATenant(t *testing.T) {
	reg, store := prometheus.NewRegistry(), newStubborn()
	b := instrument(store, store.clock.now, reg)
	ask := func() {
		require.NoError(t, b.List(t.Context(), "t/duramen/manifest/", false, func(Object) error { return nil }))
		_, err := b.Get(t.Context(), someManifest)
		require.ErrorIs(t, err, ErrNotFound)
	}
	ask()
	require.Zero(t, testutil.CollectAndCount(b.m.tenants.vecs.operations))
	require.Empty(t, b.m.tenants.byID)

	// What another process wrote is read.
	put(t, store.Bucket, someManifest, "x")
	_, err := read(t, b, someManifest)
	require.NoError(t, err)
	require.Equal(t, 1, testutil.CollectAndCount(b.m.tenants.vecs.operations))
}

func TestSeriesOfIdleTenantsGo(t *testing.T) {
	reg, store := prometheus.NewRegistry(), newStubborn()
	b := instrument(store, store.clock.now, reg)
	put(t, b, "idle/duramen/manifest/1", "x")
	put(t, b, "busy/duramen/manifest/1", "x")
	for range 3 {
		store.clock.t = store.clock.t.Add(tenantIdle / 2)
		_, err := b.Stat(t.Context(), "busy/duramen/manifest/1")
		require.NoError(t, err)
	}
	for _, vec := range []*prometheus.CounterVec{
		b.m.tenants.vecs.operations, b.m.tenants.vecs.failures, b.m.tenants.vecs.seconds, b.m.tenants.vecs.bytes,
	} {
		require.Equal(t, 2, testutil.CollectAndCount(vec), "put and stat of the busy one")
	}
	put(t, b, "idle/duramen/manifest/2", "x")
	require.InDelta(t, 1, testutil.ToFloat64(b.m.tenants.vecs.operations.WithLabelValues("idle", "put")), 0, "from the start")
}

func TestInstrumentCountsConcurrently(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := Instrument(NewInMemory(), reg).(*instrumented)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if err := b.Put(t.Context(), someIndex, bytes.NewReader([]byte("x")), 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.InDelta(t, 800, testutil.ToFloat64(b.m.vecs.operations.WithLabelValues("put", "index")), 0)
	require.InDelta(t, 800, testutil.ToFloat64(b.m.tenants.vecs.bytes.WithLabelValues("t", "put")), 0)
}

// there is a store on which everything exists.
type there struct{ Bucket }

func (there) Stat(context.Context, string) (Object, error) { return Object{}, nil }

func TestCountingAllocatesNothing(t *testing.T) {
	b := Instrument(there{NewInMemory()}, prometheus.NewRegistry())
	put(t, b, someIndex, "x")
	ctx := t.Context()
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = b.Stat(ctx, someIndex) }))
}
