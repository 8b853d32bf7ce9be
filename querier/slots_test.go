package querier

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

func testSlots(n int, v tenant.Values) *slots {
	m := newMetrics(nil)
	return newSlots("queries", n, tenant.StaticLimits(v), m.slots(m.running))
}

func TestSlotsAreGivenAndGivenBack(t *testing.T) {
	s := testSlots(1, tenant.Values{})
	release, err := s.take(t.Context(), "a", recentSlot)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.take(ctx, "a", recentSlot)
	require.Equal(t, errkind.Canceled, errkind.Of(err))
	require.ErrorIs(t, err, context.Canceled)
	ctx, cancel = context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	_, err = s.take(ctx, "b", storeSlot)
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	require.ErrorContains(t, err, "timed out while waiting for other queries to end")
	release()
	require.Empty(t, s.tenants, "a tenant without queries is forgotten")
	release, err = s.take(t.Context(), "a", storeSlot)
	require.NoError(t, err)
	release()
	require.Zero(t, s.running)
}

// TestSlotsOfTheStoreAndOfOneTenant fills all slots that may be filled, and finds no further one.
func TestSlotsOfTheStoreAndOfOneTenant(t *testing.T) {
	late, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	for n, want := range map[int]struct{ store, ofOne, storeOfOne int }{
		1: {1, 1, 1}, 2: {2, 2, 2}, 4: {3, 4, 3}, 8: {6, 7, 6}, 20: {15, 18, 14},
	} {
		fill := func(s *slots, kind int, tenants ...string) (releases []func()) {
			for _, id := range tenants {
				for {
					release, err := s.take(late, id, kind)
					if err != nil {
						break
					}
					releases = append(releases, release)
				}
			}
			return releases
		}
		s := testSlots(n, tenant.Values{})
		taken := fill(s, storeSlot, "a", "b")
		require.Len(t, taken, want.store, n)
		taken = append(taken, fill(s, recentSlot, "a", "b", "c")...)
		require.Len(t, taken, n)
		for _, release := range taken {
			release()
		}
		require.Zero(t, s.running)
		require.Empty(t, s.tenants)
		require.Len(t, fill(testSlots(n, tenant.Values{}), recentSlot, "a"), want.ofOne, n)
		require.Len(t, fill(testSlots(n, tenant.Values{}), storeSlot, "a"), want.storeOfOne, n)
	}
}

// script is a node with slots on which queries of tenants come and take their time, by a fake clock.
type script struct {
	slots *slots
	began time.Time
	wg    sync.WaitGroup
	mu    sync.Mutex
	log   []string // "second: tenant", when a query gets its slot
}

func (s *script) query(t *testing.T, after time.Duration, tenantID string, kind int, takes time.Duration) {
	s.wg.Go(func() {
		time.Sleep(after)
		release, err := s.slots.take(t.Context(), tenantID, kind)
		if err != nil {
			t.Error(err)
			return
		}
		s.mu.Lock()
		s.log = append(s.log, fmt.Sprintf("%.0f:%s", time.Since(s.began).Seconds(), tenantID))
		s.mu.Unlock()
		time.Sleep(takes)
		release()
	})
}

// started returns when the queries of a tenant got their slots.
func (s *script) started(tenantID string) (seconds []string) {
	for _, line := range s.log {
		if at, ok := strings.CutSuffix(line, ":"+tenantID); ok {
			seconds = append(seconds, at)
		}
	}
	return seconds
}

func TestOneTenantsQueriesDoNotDelayAnothersBehindAllOfThem(t *testing.T) {
	const heavy = 10 * time.Second
	for _, c := range []struct {
		name string
		n    int
		run  func(t *testing.T, s *script)
		want map[string][]string // tenant → seconds at which its queries start
	}{
		{
			name: "the next free slot is for the one with the fewest running", n: 4,
			run: func(t *testing.T, s *script) {
				for range 64 {
					s.query(t, 0, "loud", recentSlot, heavy)
				}
				s.query(t, 3*time.Second, "small", recentSlot, time.Second)
			},
			want: map[string][]string{"small": {"10"}},
		},
		{
			name: "with eight slots another need not wait at all", n: 8,
			run: func(t *testing.T, s *script) {
				for range 64 {
					s.query(t, 0, "loud", recentSlot, heavy)
				}
				s.query(t, 3*time.Second, "small", recentSlot, time.Second)
				s.query(t, 3500*time.Millisecond, "tiny", recentSlot, time.Second)
			},
			want: map[string][]string{"small": {"3"}, "tiny": {"4"}},
		},
		{
			name: "two that wait share", n: 1,
			run: func(t *testing.T, s *script) {
				for i := range 4 {
					s.query(t, time.Duration(i)*time.Millisecond, "a", recentSlot, heavy)
				}
				for i := range 3 {
					s.query(t, time.Second+time.Duration(i)*time.Millisecond, "b", recentSlot, heavy)
				}
			},
			want: map[string][]string{"a": {"0", "20", "40", "60"}, "b": {"10", "30", "50"}},
		},
		{
			name: "tenants who come one query at a time starve nobody", n: 1,
			run: func(t *testing.T, s *script) {
				for i := range 3 {
					s.query(t, time.Duration(i)*time.Millisecond, "a", recentSlot, heavy)
				}
				for i := range 4 { // b and c always have one that waits, and none more
					s.query(t, time.Second+time.Duration(i)*30*time.Second, "b", recentSlot, heavy)
					s.query(t, 2*time.Second+time.Duration(i)*30*time.Second, "c", recentSlot, heavy)
				}
			},
			want: map[string][]string{"a": {"0", "30", "60"}},
		},
		{
			name: "a store that hangs leaves slots for recent samples", n: 4,
			run: func(t *testing.T, s *script) {
				for range 10 {
					s.query(t, 0, "a", storeSlot, time.Minute)
				}
				for i := range 3 {
					s.query(t, time.Duration(i+1)*5*time.Second, "b", recentSlot, time.Second)
				}
			},
			want: map[string][]string{"b": {"5", "10", "15"}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{slots: testSlots(c.n, tenant.Values{}), began: time.Now()}
				c.run(t, s)
				s.wg.Wait()
				for id, want := range c.want {
					require.Equal(t, want, s.started(id), "%s: %v", id, s.log)
				}
				require.Empty(t, s.slots.tenants)
			})
		})
	}
}

// TestEveryQueryRunsOnceAndSlotsHold gives and takes at random: no bound is ever exceeded, and all queries run.
func TestEveryQueryRunsOnceAndSlotsHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testSlots(5, tenant.Values{})
		var wg sync.WaitGroup
		for i := range 400 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%7*i)*time.Millisecond)
				defer cancel()
				if i%3 > 0 {
					ctx = t.Context()
				}
				time.Sleep(time.Duration(i%11) * time.Millisecond)
				release, err := s.take(ctx, fmt.Sprint(i%4), i%2)
				if err != nil {
					return
				}
				s.mu.Lock()
				running, most := s.running, s.most
				s.mu.Unlock()
				if running[0] > most[0] || running[1] > most[1] || running[1] > running[0] {
					t.Errorf("%v of %v run", running, most)
				}
				time.Sleep(time.Duration(i%5) * time.Millisecond)
				release()
			})
		}
		wg.Wait()
		require.Zero(t, s.running)
		require.Empty(t, s.tenants)
	})
}

// TestUnavailableSaysWhenToSendAgain: also through Prometheus' API, and not when the query's own time is up.
func TestUnavailableSaysWhenToSendAgain(t *testing.T) {
	away := func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return nil, duramenpb.Held{}, errkind.New(errkind.Unavailable, "too few ingesters answer")
	}
	q := newQuerier(t, &fakeRecent{t: t, answer: away}, brokenStore{}, &fakeManifests{})
	h := q.Handler("/prometheus")
	for _, w := range []*httptest.ResponseRecorder{
		do(t, h, http.MethodGet, "query", form("query=up", "time="+at(0))),
		do(t, h, http.MethodGet, "query", form("query=up", "time="+at(0), "timeout=1h")),
		do(t, h, http.MethodGet, "series", form("match[]=up", "start="+at(time.Hour))),
		federated(t.Context(), q.Federate(), nil, "up"),
		read(t, h, readRequest(t, nil, readQuery(usualCut, now.UnixMilli(), everything))),
	} {
		require.Equal(t, http.StatusServiceUnavailable, w.Code, w.Body)
		require.Equal(t, "2", w.Header().Get("Retry-After"))
	}
	for _, timeout := range []string{"0", "-1", "NaN", "0s"} {
		w := do(t, h, http.MethodGet, "query", form("query=up", "time="+at(0), "timeout="+timeout))
		require.Equal(t, http.StatusServiceUnavailable, w.Code, w.Body)
		require.Empty(t, w.Header().Get("Retry-After"), timeout)
	}
	w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	ctx, cancel := context.WithCancel(r.Context())
	cancel()
	patientWriter{w, r.WithContext(ctx), time.Now()}.WriteHeader(http.StatusServiceUnavailable)
	require.Empty(t, w.Header().Get("Retry-After"))
}

func TestQueueOfATenantIsBounded(t *testing.T) {
	recent := &fakeRecent{t: t}
	cfg := testConfig(t)
	cfg.MaxConcurrent, cfg.RemoteReadConcurrentLimit = 1, 1
	q, err := New(cfg, recent, &tsdbExtras{t: t}, brokenStore{}, &fakeManifests{},
		tenant.StaticLimits(tenant.Values{MaxQueuedQueries: 2}), clock, nopLog, nil)
	require.NoError(t, err)
	h := q.Handler("/prometheus")
	recent.answer = func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return &listQuerier{}, duramenpb.Held{}, nil
	}
	for _, s := range []*slots{q.slots, q.reads} {
		release, err := s.take(t.Context(), tenantID, recentSlot)
		require.NoError(t, err)
		defer release()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		for range 2 {
			wg.Go(func() {
				if _, err := s.take(ctx, tenantID, recentSlot); err == nil {
					t.Error("a slot too many")
				}
			})
		}
		require.Eventually(t, func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.tenants[tenantID].queued() == 2
		}, time.Minute, time.Millisecond)
	}
	for _, r := range []request{
		{"query", form("query=up", "time="+at(0))},
		{"query_range", form("query=up", "start="+at(time.Hour), "end="+at(0), "step=60")},
		{"series", form("match[]=up", "start="+at(time.Hour))},
		{"labels", form("start=" + at(time.Hour))},
		{"label/job/values", form("start=" + at(time.Hour))},
	} {
		w := do(t, h, http.MethodGet, r.path, r.form)
		require.Equal(t, http.StatusTooManyRequests, w.Code, r.path)
		require.Equal(t, "5", w.Header().Get("Retry-After"))
		require.JSONEq(t, `{"status":"error","errorType":"execution","error":"tenant t1 has 2 queries waiting for their turn; `+
			`the limit max_queued_queries is 2"}`, w.Body.String())
	}
	w := federated(t.Context(), q.Federate(), nil, "up")
	require.Equal(t, http.StatusTooManyRequests, w.Code)
	require.Equal(t, "5", w.Header().Get("Retry-After"))
	w = read(t, h, readRequest(t, nil, readQuery(usualCut, now.UnixMilli(), everything)))
	require.Equal(t, http.StatusTooManyRequests, w.Code)
	require.Equal(t, "5", w.Header().Get("Retry-After"))
	require.Contains(t, w.Body.String(), "tenant t1 has 2 remote reads waiting for their turn; the limit max_queued_queries is 2")
	require.Equal(t, http.StatusOK, do(t, h, http.MethodGet, "format_query", form("query=up")).Code, "takes no slot")

	other, err := q.slots.enter("other", recentSlot)
	require.NoError(t, err, "the queue of another tenant is its own")
	require.False(t, q.slots.withdraw("other", recentSlot, other))
}
