package querier

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tombstone"
	"github.com/duramendb/duramen/duramenpb"
)

// hangingStore answers nothing. entered gets a value for each call.
type hangingStore struct{ entered chan struct{} }

func newHangingStore() hangingStore { return hangingStore{make(chan struct{}, 100)} }

func (s hangingStore) Querier(string, []manifest.Block, *tombstone.Set, int64, int64) (storage.Querier, error) {
	return hangingQuerier(s), nil
}

func (s hangingStore) ChunkQuerier(string, []manifest.Block, *tombstone.Set, int64, int64) (storage.ChunkQuerier, error) {
	return nil, errBroken
}

type hangingQuerier struct{ entered chan struct{} }

func (q hangingQuerier) hang(ctx context.Context) error {
	q.entered <- struct{}{}
	<-ctx.Done()
	return fmt.Errorf("ask the store in Hamburg: %w", ctx.Err())
}

func (q hangingQuerier) Select(
	ctx context.Context, _ bool, _ *storage.SelectHints, _ ...*labels.Matcher,
) storage.SeriesSet {
	return storage.ErrSeriesSet(q.hang(ctx))
}

func (q hangingQuerier) LabelValues(
	ctx context.Context, _ string, _ *storage.LabelHints, _ ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	return nil, nil, q.hang(ctx)
}

func (q hangingQuerier) LabelNames(
	ctx context.Context, _ *storage.LabelHints, _ ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	return nil, nil, q.hang(ctx)
}

func (q hangingQuerier) Close() error { return nil }

// overHangingStore is the API of a node whose store hangs and has samples from before the cut.
func overHangingStore(t *testing.T, timeout time.Duration) (http.Handler, hangingStore) {
	t.Helper()
	cfg := testConfig(t)
	cfg.Timeout = timeout
	store := newHangingStore()
	block := manifest.Block{ULID: blockID(1), MinTime: 0, MaxTime: usualCut}
	listing := fixedManifest{m: &manifest.Manifest{Tenant: tenantID, Version: 1, Blocks: []manifest.Block{block}}}
	q, err := New(cfg, emptyRecent{t}, nil, store, listing, noLimits, clock, nopLog, nil)
	require.NoError(t, err)
	return q.Handler("/prometheus"), store
}

// emptyRecent and fixedManifest are for several queries at a time.
type (
	emptyRecent   struct{ t *testing.T }
	fixedManifest struct {
		noDeletions

		m *manifest.Manifest
	}
)

func (r emptyRecent) Querier(
	context.Context, string, duramenpb.View, int64, int64,
) (storage.Querier, duramenpb.Held, error) {
	return &listQuerier{t: r.t}, duramenpb.Held{}, nil
}

func (r emptyRecent) ChunkQuerier(
	context.Context, string, duramenpb.View, int64, int64,
) (storage.ChunkQuerier, duramenpb.Held, error) {
	return nil, duramenpb.Held{}, errBroken
}

func (fixedManifest) Unlisted(context.Context, string) (ulid.ULID, error) { return ulid.ULID{}, nil }

func (f fixedManifest) Known(string) *manifest.Manifest { return f.m }

func (f fixedManifest) Current(context.Context, string) (*manifest.Manifest, error) { return f.m, nil }

func (f fixedManifest) Refresh(context.Context, string) (*manifest.Manifest, error) { return f.m, nil }

// TestStoreThatHangsSaysWhatItWaitedFor: the answer is 503 and the store's own words, not that the time is up.
func TestStoreThatHangsSaysWhatItWaitedFor(t *testing.T) {
	h, _ := overHangingStore(t, 400*time.Millisecond)
	do(t, h, http.MethodGet, "query", form("query=1")) // the first request builds the API, which takes a while
	for _, r := range []request{
		{"query", form("query=up", "time="+at(20*time.Hour))},
		{"query_range", form("query=up", "start="+at(20*time.Hour), "end="+at(0), "step=60")},
		{"series", form("match[]=up", "start="+at(20*time.Hour))},
		{"labels", form("start=" + at(20*time.Hour))},
		{"label/job/values", form("start=" + at(20*time.Hour))},
	} {
		w := do(t, h, http.MethodGet, r.path, r.form)
		require.Equal(t, http.StatusServiceUnavailable, w.Code, "%s: %s", r.path, w.Body)
		require.Contains(t, w.Body.String(), "ask the store in Hamburg", r.path)
	}
}

// TestStoreThatHangsLeavesSlotsForRecentSamples: however many queries wait for the store, one over recent samples runs. And
// all of them end within the timeout, although most never get a slot.
func TestStoreThatHangsLeavesSlotsForRecentSamples(t *testing.T) {
	const timeout = 2 * time.Second
	h, store := overHangingStore(t, timeout)
	do(t, h, http.MethodGet, "query", form("query=1")) // the first request builds the API, which takes a while
	var done sync.WaitGroup
	begin := time.Now()
	for range 12 { // and 4 slots
		done.Go(func() {
			w := do(t, h, http.MethodGet, "query", form("query=up", "time="+at(20*time.Hour)))
			if w.Code != http.StatusServiceUnavailable {
				t.Errorf("%d: %s", w.Code, w.Body)
			}
		})
	}
	for range 3 {
		<-store.entered
	}
	for range 10 {
		w := do(t, h, http.MethodGet, "query", form("query=up", "time="+at(time.Minute)))
		require.Equal(t, http.StatusOK, w.Code, w.Body)
	}
	require.Less(t, time.Since(begin), timeout, "nothing waited for the store")
	require.Empty(t, store.entered, "the fourth slot is not for the store")
	done.Wait()
	require.Less(t, time.Since(begin), 2*timeout)
}

func TestWhichQueriesNeedTheStore(t *testing.T) {
	q := newQuerier(t, nil, nil, nil)
	old, recent := now.Add(-12*time.Hour), now.Add(-time.Hour)
	unix := func(t time.Time) string { return fmt.Sprint(float64(t.UnixMilli()) / 1000) }
	for _, c := range []struct {
		route string
		form  url.Values
		want  bool
	}{
		{"query", form("query=up"), false},
		{"query", form("query=up", "time="+unix(recent)), false},
		{"query", form("query=up", "time="+unix(old)), true},
		{"query", form("query=up", "time="+old.Format(time.RFC3339)), true},
		{"query", form("query=up offset 12h"), true},
		{"query", form("query=rate(up[12h])"), true},
		{"query", form("query=up @ " + unix(old)), true},
		{"query", form("query=max_over_time(up[12h:1m] @ end())"), true},
		{"query", form("query=1 + 1", "time="+unix(old)), false},
		{"query", form("query=up", "time=yesterday"), false},
		{"query", form("query=up{"), false},
		{"query_range", form("query=up", "start="+unix(recent), "end="+unix(now)), false},
		{"query_range", form("query=up", "start="+unix(old), "end="+unix(now)), true},
		{"series", form("match[]=up"), true},
		{"series", form("match[]=up", "start="+unix(recent)), false},
		{"labels", form("start=" + unix(old)), true},
		{"label_values", form("start=yesterday"), false},
		{"query_range", form("query=up @ start()", "start="+unix(old), "end="+unix(now)), true},
	} {
		require.Equal(t, c.want, q.below(c.route, c.form, usualCut), "%s %v", c.route, c.form)
	}
}
