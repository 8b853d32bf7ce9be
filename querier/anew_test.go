package querier

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// breaking is a node whose answers about recent samples break off so many times.
func breaking(t *testing.T, times int) (*Querier, *fakeRecent) {
	t.Helper()
	rec := &fakeRecent{t: t}
	rec.answer = func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		q := &listQuerier{points: points(now.UnixMilli()-2*hour, now.UnixMilli(), hour/60)}
		if len(rec.views) <= times {
			q.err = errkind.New(errkind.Unavailable, "ingester-1 does not answer any more: %w", ErrAnew)
		}
		return q, duramenpb.Held{}, nil
	}
	m := &manifest.Manifest{Version: 1}
	return newQuerier(t, rec, &fakeStore{t: t}, &fakeManifests{current: m, fresh: m}), rec
}

func TestAnswerThatBreaksOffIsAskedForAgain(t *testing.T) {
	whole, _ := breaking(t, 0)
	want := whole.Handler("/prometheus")
	times := 0
	q, rec := breaking(t, 0)
	answer := rec.answer
	rec.answer = func(v duramenpb.View, mint, maxt int64) (*listQuerier, duramenpb.Held, error) {
		list, held, err := answer(v, mint, maxt)
		if len(rec.views) <= times {
			list.err = errkind.New(errkind.Unavailable, "ingester-1 does not answer any more: %w", ErrAnew)
		}
		return list, held, err
	}
	h := q.Handler("/prometheus") // one for all: Prometheus writes its OpenAPI documents for each
	for name, request := range sweptRequests(t, false) {
		again := func(n int) *httptest.ResponseRecorder {
			times, rec.views, rec.opened = n, nil, nil
			return request(h)
		}
		again(0)
		plans := len(rec.views)
		for _, n := range []int{1, maxAnew} {
			w := again(n)
			require.Equal(t, http.StatusOK, w.Code, "%s: %s", name, w.Body)
			require.Equal(t, request(want).Body.Bytes(), w.Body.Bytes(), name)
			require.LessOrEqual(t, len(rec.views), plans*(n+1), name)
			for _, o := range rec.opened {
				require.Equal(t, 1, o.closed, name)
			}
		}
		w := again(1000)
		require.Equal(t, http.StatusServiceUnavailable, w.Code, "%s: %s", name, w.Body)
		require.Contains(t, w.Body.String(), "ingester-1 does not answer any more", name)
	}
}

func TestBrokenAnswersOfOneQuerierAreEachAskedForAgain(t *testing.T) {
	q, rec := breaking(t, 0)
	sq, err := q.Queryable().Querier(0, now.UnixMilli())
	require.NoError(t, err)
	for range 3 {
		last := len(rec.views)
		rec.answer = func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
			return &listQuerier{points: points(0, 10, 1)}, duramenpb.Held{}, nil
		}
		if len(rec.opened) > 0 {
			rec.opened[len(rec.opened)-1].err = ErrAnew
		}
		values, _, err := sq.LabelValues(as(t, tenantID), "i", nil)
		require.NoError(t, err)
		require.Len(t, values, 3)
		require.Len(t, rec.views, last+1)
	}
	require.NoError(t, sq.Close())
	for _, o := range rec.opened {
		require.Equal(t, 1, o.closed)
	}
}

func TestNothingIsBegunAnewWhenTheTimeIsUp(t *testing.T) {
	q, _ := breaking(t, 0)
	ctx, cancel := context.WithCancel(as(t, tenantID))
	calls := 0
	err := q.again(ctx, always, func(context.Context) error {
		calls++
		cancel()
		return fmt.Errorf("late: %w", ErrAnew)
	})
	require.ErrorIs(t, err, ErrAnew)
	require.Equal(t, 1, calls)
}

// TestQueryThatCannotBeMadeHasAResult: a query that is enlarged at once never had a result of its own.
func TestQueryThatCannotBeMadeHasAResult(t *testing.T) {
	q, _ := breaking(t, 0)
	first, err := q.Engine().NewInstantQuery(t.Context(), noSeries{}, nil, "m", now)
	require.NoError(t, err)
	ctx := context.WithValue(as(t, tenantID), seatKey{}, &seat{q: q, tenantID: tenantID, large: true})
	r := &replannedQuery{Query: first, q: q, newQuery: func(bool) (promql.Query, error) {
		return nil, errkind.New(errkind.Unprocessable, "no such query")
	}}
	defer r.Close()
	result := r.Exec(ctx)
	require.EqualError(t, result.Err, "no such query")
}

type noSeries struct{}

func (noSeries) Querier(int64, int64) (storage.Querier, error) { return storage.NoopQuerier(), nil }
