package querier

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
)

// withMemory is the API over recent series of 60 samples, with four slots and one large one.
func withMemory(t *testing.T, series int, bytes int64) (*Querier, http.Handler) {
	t.Helper()
	recent := &fakeRecent{t: t, answer: func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return &listQuerier{points: recentPoints(series, 60)}, duramenpb.Held{}, nil
	}}
	cfg := testConfig(t)
	cfg.MemoryBytes = bytes
	listing := fixedManifest{m: &manifest.Manifest{Version: 1}} // for several queries at a time
	q, err := New(cfg, recent, &tsdbExtras{t: t}, brokenStore{}, listing, noLimits, clock, nopLog, nil)
	require.NoError(t, err)
	return q, q.Handler("/prometheus")
}

func TestQueryTooLargeForASmallSlotTakesALargeOne(t *testing.T) {
	wide := form("query=m", "start="+at(11*time.Hour), "end="+at(10*time.Hour), "step=60")
	list := form("match[]=m", "start="+at(11*time.Hour))
	for _, c := range []struct {
		name     string
		series   int
		bytes    int64
		status   int
		enlarged int
		says     string
	}{
		{"no bound", 50, 0, 200, 0, ""},
		{"fits a small one", 10, 8 * 40_000, 200, 0, ""},
		{"too many samples for a small one", 50, 8 * 50 * 61 * sampleBytes / 2, 200, 1, ""},
		{
			"too many samples", 50, 2 * 50 * 50 * sampleBytes, 422, 1,
			"query processing would load too many samples into memory in query execution: more than 2500, which is what a " +
				"query may have here, by querier.memory_share; querier.max_samples is 50000000",
		},
		{
			"too many series", 50, 2 * 50 * seriesBytes, 422, 1,
			"bytes of memory or more; a query may have 10000 here, by querier.memory_share",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			q, h := withMemory(t, c.series, c.bytes)
			w := do(t, h, http.MethodGet, "query_range", wide)
			require.Equal(t, c.status, w.Code, w.Body)
			require.InDelta(t, c.enlarged, testutil.ToFloat64(q.metrics.enlarged), 0)
			if c.status == http.StatusOK {
				_, unbounded := withMemory(t, c.series, 0)
				require.Equal(t, do(t, unbounded, http.MethodGet, "query_range", wide).Body, w.Body)
			} else {
				require.Contains(t, w.Body.String(), c.says)
				require.Contains(t, w.Body.String(), `"errorType":"execution"`)
				require.InDelta(t, 1, testutil.ToFloat64(q.metrics.tooLarge), 0)
			}
			w = do(t, h, http.MethodGet, "series", list)
			if strings.Contains(c.name, "series") {
				require.Equal(t, http.StatusUnprocessableEntity, w.Code, w.Body)
				require.Contains(t, w.Body.String(), c.says)
			} else {
				require.Equal(t, http.StatusOK, w.Code, w.Body)
			}
			for _, s := range []*slots{q.slots, q.large} {
				if s != nil {
					require.Zero(t, s.running)
					require.Empty(t, s.tenants)
				}
			}
		})
	}
}

// TestLargeQueriesWaitWithoutAPlace: while the one large slot is taken, large queries wait for it and hold no other, so that
// small ones go on.
func TestLargeQueriesWaitWithoutAPlace(t *testing.T) {
	q, h := withMemory(t, 50, 8*50*61*sampleBytes/2)
	q.recent = &oneAtATime{Recent: q.recent}
	release, err := q.large.take(t.Context(), "other", recentSlot)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 8 { // and four slots
		wg.Go(func() {
			w := do(t, h, http.MethodGet, "query_range", form("query=m", "start="+at(11*time.Hour), "end="+at(10*time.Hour), "step=60"))
			if w.Code != http.StatusOK {
				t.Errorf("%d: %s", w.Code, w.Body)
			}
		})
	}
	require.Eventually(t, func() bool {
		q.large.mu.Lock()
		defer q.large.mu.Unlock()
		own := q.large.tenants[tenantID]
		return own != nil && own.queued() == 8
	}, time.Minute, time.Millisecond)
	require.Zero(t, q.slots.running)
	require.Equal(t, http.StatusOK, do(t, h, http.MethodGet, "query", form("query=1", "time="+at(0))).Code)
	release()
	wg.Wait()
	require.Zero(t, q.large.running)
}

func TestClasses(t *testing.T) {
	require.Equal(t, classes{}, newClasses(0, 20))
	require.Equal(t, classes{small: 8 << 20, large: 80 << 20, largeSlots: 2}, newClasses(320<<20, 20))
	require.Equal(t, classes{small: 160 << 20, large: 160 << 20, largeSlots: 1}, newClasses(320<<20, 1))
	require.Equal(t, 50, samplesIn(0, 50))
	require.Equal(t, 50, samplesIn(1<<40, 50))
	require.Equal(t, 2, samplesIn(2*sampleBytes, 50))
	require.Equal(t, 1, samplesIn(1, 50))
}

// oneAtATime lets several queries ask a fake that is made for one.
type oneAtATime struct {
	Recent
	mu sync.Mutex
}

func (r *oneAtATime) Querier(
	ctx context.Context, id string, v duramenpb.View, mint, maxt int64,
) (storage.Querier, duramenpb.Held, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Recent.Querier(ctx, id, v, mint, maxt)
}

// heavySeries holds chunks in memory.
type heavySeries struct {
	storage.Series
	bytes int
}

func (s heavySeries) Held() int { return s.bytes }

func TestChunksThatASeriesHoldsCount(t *testing.T) {
	series := storage.NewListSeries(labels.FromStrings("__name__", "m"), nil)
	h := held{most: 10_000}
	require.NoError(t, h.add(heavySeries{series, 5000}))
	require.ErrorAs(t, h.add(heavySeries{series, 5000}), new(errMemory))
	require.Greater(t, h.bytes, int64(10_000))
}
