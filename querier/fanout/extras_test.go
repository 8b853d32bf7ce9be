package fanout

import (
	"context"
	"testing"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/tenant"
)

func withTenant(t *testing.T) context.Context {
	t.Helper()
	return tenant.WithID(context.Background(), tenantID)
}

func TestLabelsAreThoseOfAQuorum(t *testing.T) {
	inWorld(t, 3, 3, 2, func(t *testing.T, w *world, began int64) {
		w.trouble("a0", refuses)
		sq, err := w.querier.Queryable().Querier(began, began+10_000)
		require.NoError(t, err)
		values, _, err := sq.LabelValues(withTenant(t), "i", nil)
		require.NoError(t, err)
		require.Equal(t, []string{"0", "1", "2", "3", "4", "5"}, values)
		names, _, err := sq.LabelNames(withTenant(t), nil)
		require.NoError(t, err)
		require.Equal(t, []string{"__name__", "i"}, names)
		require.NoError(t, sq.Close())
	})
}

func TestExtrasCountReplicasOnce(t *testing.T) {
	inWorld(t, 3, 3, 2, func(t *testing.T, w *world, began int64) {
		w.trouble("b1", refuses)
		found, err := w.fanout.Exemplars(withTenant(t), tenantID, 0, began+10_000)
		require.NoError(t, err)
		require.Len(t, found, 6)
		for _, r := range found {
			require.Len(t, r.Exemplars, 5)
		}
		told, err := w.fanout.Metadata(withTenant(t), tenantID, "m")
		require.NoError(t, err)
		require.Equal(t, []duramenpb.Metadata{{Family: "m", Help: "m"}}, told)
		head, err := w.fanout.HeadStats(withTenant(t), tenantID, 1)
		require.NoError(t, err)
		require.Equal(t, duramenpb.HeadStats{
			Series: 6, Chunks: 30, LabelPairs: 4, MinTime: 1, MaxTime: listSlack,
			SeriesByMetric: []duramenpb.Count{{Name: "m", Value: 6}}, SeriesByPair: []duramenpb.Count{},
			ValuesByLabel: []duramenpb.Count{{Name: "i", Value: 3}}, BytesByLabel: []duramenpb.Count{},
		}, head)
		user, err := w.fanout.UserStats(withTenant(t), tenantID)
		require.NoError(t, err)
		require.Equal(t, duramenpb.UserStats{Series: 6, SamplesPerSecond: 2}, user)

		w.trouble("c0", refuses)
		_, err = w.fanout.UserStats(withTenant(t), tenantID)
		require.ErrorContains(t, err, "ingester c0")
	})
}

// TestStatsOfMoreZonesThanCopies: each of four zones has three quarters of the series.
func TestStatsOfMoreZonesThanCopies(t *testing.T) {
	inWorld(t, 3, 4, 1, func(t *testing.T, w *world, _ int64) {
		user, err := w.fanout.UserStats(withTenant(t), tenantID)
		require.NoError(t, err)
		require.InDelta(t, 6, user.Series, 1)
	})
}

func TestMergedExemplarsAreDistinctAndInOrder(t *testing.T) {
	a, b := labels.FromStrings("__name__", "a"), labels.FromStrings("__name__", "b")
	e := func(t int64, v float64) exemplar.Exemplar { return exemplar.Exemplar{Ts: t, Value: v, HasTs: true} }
	first := []exemplar.Exemplar{e(1, 1), e(3, 3)}
	got := mergeExemplars([]exemplar.QueryResult{
		{SeriesLabels: b, Exemplars: []exemplar.Exemplar{e(1, 1)}},
		{SeriesLabels: a, Exemplars: first},
		{SeriesLabels: a, Exemplars: []exemplar.Exemplar{e(1, 1), e(2, 2), e(3, 4)}},
	})
	require.Equal(t, []exemplar.QueryResult{
		{SeriesLabels: a, Exemplars: []exemplar.Exemplar{e(1, 1), e(2, 2), e(3, 3), e(3, 4)}},
		{SeriesLabels: b, Exemplars: []exemplar.Exemplar{e(1, 1)}},
	}, got)
	require.Equal(t, []exemplar.Exemplar{e(1, 1), e(3, 3)}, first, "what a member gave is not changed")
	require.Equal(t, []exemplar.QueryResult{}, mergeExemplars(nil))
}

func TestMergedMetadataHasTheLatestFirst(t *testing.T) {
	m := func(family, help string) duramenpb.Metadata { return duramenpb.Metadata{Family: family, Help: help} }
	require.Equal(t, []duramenpb.Metadata{m("a", "new"), m("a", "newer"), m("a", "old"), m("b", "x")},
		mergeMetadata([][]duramenpb.Metadata{
			{m("a", "new"), m("a", "old"), m("b", "x")}, {m("a", "newer"), m("a", "new")}, {m("a", "new")},
		}))
}
