package ingester

import (
	"context"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// count returns how many samples a query with this view gets, and what is said beside it.
func (f *fixture) count(view duramenpb.View, mint, maxt int64) (int, duramenpb.Held) {
	f.t.Helper()
	q, held, err := f.Querier(context.Background(), "a", view, mint, maxt)
	require.NoError(f.t, err)
	defer func() { require.NoError(f.t, q.Close()) }()
	n := 0
	for _, samples := range readAll(f.t, q) {
		n += len(samples)
	}
	return n, held
}

func TestQuerierReturnsWhatTheViewLeavesToIt(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	view := func(version uint64, cut int64) duramenpb.View { return duramenpb.View{Version: version, Cut: cut} }
	n, held := f.count(all, math.MinInt64, math.MaxInt64)
	require.Zero(t, n, "an unknown tenant has no data")
	require.Equal(t, duramenpb.Held{Floor: t0}, held, "the disk is new: what came before is in the bucket or nowhere")

	f.push(new(batch).floats(named("x"), 1, t0-2000, t0-1000))
	n, _ = f.count(view(7, t0+5000), math.MinInt64, math.MaxInt64)
	require.Equal(t, 2, n, "the head is in no manifest")
	_, err := f.Flush(t.Context(), "a", false)
	require.NoError(t, err)
	f.push(new(batch).floats(named("x"), 1, t0))
	_, err = f.Flush(t.Context(), "a", true)
	require.NoError(t, err)

	m, err := f.catalog.Current(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, uint64(2), m.Version)
	require.Len(t, m.Blocks, 2)
	for _, c := range []struct {
		name string
		view duramenpb.View
		want int
	}{
		{"both blocks are listed and lie below the cut", view(2, t0+1), 0},
		{"the second is not listed in this version", view(1, t0+1), 1},
		{"none is listed", view(0, t0+1), 3},
		{"what lies above the cut is owed in any case", view(2, t0-1000), 2},
	} {
		n, _ := f.count(c.view, math.MinInt64, math.MaxInt64)
		require.Equal(t, c.want, n, c.name)
	}
	n, _ = f.count(all, t0-1000, t0-1000)
	require.Equal(t, 1, n, "bounds are inclusive")

	f.push(new(batch).floats(named("x"), 1, t0-1500))
	n, _ = f.count(view(2, t0+1), t0-1600, t0-1400)
	require.Equal(t, 1, n, "what is out of order is in no manifest")
}

func TestChunkQuerierIsTheSame(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	f.push(new(batch).floats(named("x"), 1, t0, t0+1))
	q, _, err := f.ChunkQuerier(t.Context(), "a", all, t0, t0+1)
	require.NoError(t, err)
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "x"))
	require.True(t, set.Next())
	chunks := set.At().Iterator(nil)
	require.True(t, chunks.Next())
	require.Equal(t, 2, chunks.At().Chunk.NumSamples())
	require.NoError(t, q.Close())
	require.NoError(t, q.Close(), "a second close does nothing")
	tenant := f.tenants.byID["a"]
	require.Eventually(t, func() bool { // housekeeping may hold a handle for a moment
		tenant.mu.Lock()
		defer tenant.mu.Unlock()
		return tenant.handles == 0
	}, 10*time.Second, time.Millisecond)
}

// TestQueriesWhileTheTenantComesAndGoes runs queries while the tenant is closed, broken, reopened and flushed. A query gets all or an
// error of kind Unavailable; a TSDB closed under a querier would end the test process.
func TestQueriesWhileTheTenantComesAndGoes(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	var series int
	b := &batch{}
	for ; series < 50; series++ {
		b.floats(labels.FromStrings("__name__", "x", "i", time.Duration(series).String()), 1, t0-1000, t0)
	}
	f.push(b)
	_, err := f.Flush(t.Context(), "a", false)
	require.NoError(t, err, "a tenant that is closed because it idles has everything in blocks, and its logs go")
	tenant := f.tenants.byID["a"]
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var work sync.WaitGroup
	for range 2 {
		work.Go(func() {
			for ctx.Err() == nil {
				q, _, err := f.Querier(context.Background(), "a", all, math.MinInt64, math.MaxInt64)
				if err != nil {
					if errkind.Of(err) != errkind.Unavailable {
						t.Error(err)
					}
					continue
				}
				got := readAll(t, q)
				if len(got) != series || len(got[`{__name__="x", i="1ns"}`]) != 2 {
					t.Errorf("a query got %d series", len(got))
				}
				if err := q.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for n := 0; ctx.Err() == nil; n++ {
		tenant.mu.Lock()
		l := tenant.life
		tenant.mu.Unlock()
		switch {
		case l == nil:
			time.Sleep(time.Millisecond)
		case n%3 == 0:
			tenant.fail(l, errWBL, false)
		case n%3 == 1:
			require.NoError(t, tenant.closeIdle(l, func() bool { return true }))
		default:
			_, _ = f.Flush(ctx, "a", false)
		}
	}
	work.Wait()
	require.Len(t, f.eventually(), series)
}

// eventually reads once the tenant is open again.
func (f *fixture) eventually() map[string][]sample {
	f.t.Helper()
	require.Eventually(f.t, func() bool {
		q, _, err := f.Querier(context.Background(), "a", all, 0, 1)
		return err == nil && q.Close() == nil
	}, 20*time.Second, 5*time.Millisecond)
	return f.read()
}
