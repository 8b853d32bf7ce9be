package querier

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// tsdbExtras is an ingester's answer for the one tenant, from a TSDB; without one the tenant has no data there.
type tsdbExtras struct {
	t        testing.TB
	db       *tsdb.DB
	metadata []duramenpb.Metadata
	chunks   int64
	err      error
}

func (e *tsdbExtras) Exemplars(
	ctx context.Context, id string, mint, maxt int64, matchers ...[]*labels.Matcher,
) ([]exemplar.QueryResult, error) {
	require.Equal(e.t, tenantID, id)
	if e.err != nil || e.db == nil {
		return []exemplar.QueryResult{}, e.err
	}
	q, err := e.db.ExemplarQuerier(ctx)
	if err != nil {
		return nil, err
	}
	return q.Select(mint, maxt, matchers...)
}

func (e *tsdbExtras) Metadata(_ context.Context, id, family string) ([]duramenpb.Metadata, error) {
	require.Equal(e.t, tenantID, id)
	var out []duramenpb.Metadata
	for _, m := range e.metadata {
		if family == "" || m.Family == family {
			out = append(out, m)
		}
	}
	return out, e.err
}

func (e *tsdbExtras) HeadStats(_ context.Context, id string, limit int) (duramenpb.HeadStats, error) {
	require.Equal(e.t, tenantID, id)
	if e.err != nil || e.db == nil {
		return duramenpb.HeadStats{}, e.err
	}
	s := e.db.Head().Stats(labels.MetricName, limit)
	counts := func(stats []index.Stat) (out []duramenpb.Count) {
		for _, s := range stats {
			out = append(out, duramenpb.Count{Name: s.Name, Value: s.Count})
		}
		return out
	}
	p := s.IndexPostingStats
	return duramenpb.HeadStats{
		Series: s.NumSeries, LabelPairs: p.NumLabelPairs, Chunks: e.chunks, MinTime: s.MinTime, MaxTime: s.MaxTime,
		SeriesByMetric: counts(p.CardinalityMetricsStats), SeriesByPair: counts(p.LabelValuePairsStats),
		ValuesByLabel: counts(p.CardinalityLabelStats), BytesByLabel: counts(p.LabelValueStats),
	}, nil
}

// adminOf answers the reference's status/tsdb.
type adminOf struct {
	absent
	db *tsdb.DB
}

func (a adminOf) Delete(ctx context.Context, mint, maxt int64, ms ...*labels.Matcher) error {
	return a.db.Delete(ctx, mint, maxt, ms...)
}

func (a adminOf) Stats(name string, limit int) (*tsdb.Stats, error) {
	return a.db.Head().Stats(name, limit), nil
}

// TestExtrasFailLoudly: what cannot be asked for is an error with its kind's status, not an empty answer.
func TestExtrasFailLoudly(t *testing.T) {
	extras := &tsdbExtras{t: t, err: errkind.New(errkind.Unavailable, "ingester is starting")}
	q, err := New(testConfig(t), nil, extras, nil, &fakeManifests{}, noLimits, clock, nopLog, nil)
	require.NoError(t, err)
	for _, path := range []string{"query_exemplars", "metadata", "status/tsdb"} {
		w := do(t, q.Handler("/prometheus"), http.MethodGet, path, form("query=up"))
		require.Equal(t, http.StatusServiceUnavailable, w.Code, path)
		require.Contains(t, w.Body.String(), "ingester is starting", path)
		require.Contains(t, w.Body.String(), `"status":"error"`, path)
	}
}

// metadataTargets are targets with the given metadata: the n-th of each family is the n-th target's.
type metadataTargets struct {
	absent
	targets []*scrape.Target
}

func newMetadataTargets(all []duramenpb.Metadata) *metadataTargets {
	var stores []metadataOfTarget
	count := map[string]int{}
	for _, m := range all {
		n := count[m.Family]
		count[m.Family]++
		if n == len(stores) {
			stores = append(stores, metadataOfTarget{})
		}
		stores[n][m.Family] = scrape.MetricMetadata{
			MetricFamily: m.Family, Type: model.MetricType(m.Type), Help: m.Help, Unit: m.Unit,
		}
	}
	out := &metadataTargets{}
	for _, s := range stores {
		target := scrape.NewTarget(labels.EmptyLabels(), &config.ScrapeConfig{}, nil, nil)
		target.SetMetadataStore(s)
		out.targets = append(out.targets, target)
	}
	return out
}

func (m *metadataTargets) TargetsActive() map[string][]*scrape.Target {
	return map[string][]*scrape.Target{"pool": m.targets}
}

type metadataOfTarget map[string]scrape.MetricMetadata

func (s metadataOfTarget) GetMetadata(family string) (scrape.MetricMetadata, bool) {
	m, ok := s[family]
	return m, ok
}

func (s metadataOfTarget) ListMetadata() (out []scrape.MetricMetadata) {
	for _, m := range s {
		out = append(out, m)
	}
	return out
}
func (s metadataOfTarget) SizeMetadata() int   { return 0 }
func (s metadataOfTarget) LengthMetadata() int { return len(s) }

var someMetadata = []duramenpb.Metadata{
	{Family: "a", Type: "counter", Help: "New <text>, \"quoted\" & ünïcode\n.", Unit: "seconds"},
	{Family: "a", Type: "counter", Help: "Old text."},
	{Family: "a", Type: "gauge", Help: "Old text."},
	{Family: "b", Type: "histogram"},
	{Family: "c", Type: "unknown", Help: "c"},
	{Family: "c", Type: "unknown", Help: "c c"},
	{Family: "d.dots", Type: "info"},
}

// TestMetadataAnswersAsPrometheus: same headers and statuses, same JSON where Prometheus has no choice, and as many
// families and descriptions where limits make it choose at random.
func TestMetadataAnswersAsPrometheus(t *testing.T) {
	for _, told := range [][]duramenpb.Metadata{nil, someMetadata} {
		q, err := New(testConfig(t), nil, &tsdbExtras{t: t, metadata: told}, nil, nil, noLimits, clock, nopLog, nil)
		require.NoError(t, err)
		ours, reference := q.Handler("/prometheus"), referenceHandler(nil, newMetadataTargets(told), nil)
		for _, params := range []string{
			"", "metric=a", "metric=nothing", "metric=d.dots", "limit=2", "limit=0", "limit=-1", "limit=x", "limit=100",
			"limit_per_metric=1", "limit_per_metric=0", "limit_per_metric=-3", "limit_per_metric=x", "limit=1&limit_per_metric=2",
			"limit=&limit_per_metric=", "metric=a&limit=0", "metric=a&limit_per_metric=2",
		} {
			target := "metadata?" + params
			want, got := do(t, reference, http.MethodGet, target, nil), do(t, ours, http.MethodGet, target, nil)
			require.Equal(t, want.Code, got.Code, "%s: %s", params, got.Body)
			require.Equal(t, want.Header(), got.Header(), params)
			if want.Code != http.StatusOK {
				require.JSONEq(t, want.Body.String(), got.Body.String(), params)
				continue
			}
			wantFamilies, gotFamilies := families(t, want.Body.Bytes()), families(t, got.Body.Bytes())
			require.Len(t, gotFamilies, len(wantFamilies), params)
			if !strings.Contains(params, "limit=") {
				require.Equal(t, shape(wantFamilies), shape(gotFamilies), params)
			}
			if !strings.Contains(params, "limit") {
				require.Equal(t, wantFamilies, gotFamilies, params)
			}
		}
		w := do(t, ours, http.MethodPost, "metadata", form("metric=a"))
		require.Equal(t, http.StatusMethodNotAllowed, w.Code, "as Prometheus")
	}
}

// TestMetadataLimitsKeepTheLatest: what limits leave is not left to chance.
func TestMetadataLimitsKeepTheLatest(t *testing.T) {
	q, err := New(testConfig(t), nil, &tsdbExtras{t: t, metadata: someMetadata}, nil, nil, noLimits, clock, nopLog, nil)
	require.NoError(t, err)
	w := do(t, q.Handler("/prometheus"), http.MethodGet, "metadata?limit=3&limit_per_metric=2", nil)
	require.JSONEq(t, `{"status":"success","data":{`+
		`"a":[{"type":"counter","unit":"seconds","help":"New \u003ctext\u003e, \"quoted\" \u0026 ünïcode\n."},`+
		`{"type":"counter","unit":"","help":"Old text."}],`+
		`"b":[{"type":"histogram","unit":"","help":""}],`+
		`"c":[{"type":"unknown","unit":"","help":"c"},{"type":"unknown","unit":"","help":"c c"}]}}`, w.Body.String())
}

// families reads an answer; the order within a family says nothing.
func families(t *testing.T, body []byte) map[string][]metadata.Metadata {
	t.Helper()
	var v struct {
		Status string                         `json:"status"`
		Data   map[string][]metadata.Metadata `json:"data"`
	}
	require.NoError(t, json.Unmarshal(body, &v))
	require.Equal(t, "success", v.Status)
	require.NotNil(t, v.Data)
	for _, ms := range v.Data {
		slices.SortFunc(ms, func(a, b metadata.Metadata) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
	return v.Data
}

// shape is how many descriptions each family has.
func shape(families map[string][]metadata.Metadata) map[string]int {
	out := map[string]int{}
	for name, ms := range families {
		out[name] = len(ms)
	}
	return out
}

// TestTSDBStatusAnswersAsPrometheus compares with Prometheus over the same head.
func TestTSDBStatusAnswersAsPrometheus(t *testing.T) {
	reg := prometheus.NewRegistry()
	db := openDBWith(t, reg)
	app := db.AppenderV2(t.Context())
	for i := range 20 {
		for j := range i {
			lset := labels.FromStrings("__name__", fmt.Sprint("m", i), "j", fmt.Sprint(j), "x", "é<>")
			_, err := app.Append(0, lset, 0, now.UnixMilli()+int64(j), 1, nil, nil, storage.AOptions{})
			require.NoError(t, err)
		}
	}
	require.NoError(t, app.Commit())
	q, err := New(testConfig(t), nil, &tsdbExtras{t: t, db: db, chunks: 190}, nil, nil, noLimits, clock, nopLog, nil)
	require.NoError(t, err)
	ours, reference := q.Handler("/prometheus"), referenceHandler(db, nil, reg)
	for _, params := range []string{"", "limit=1", "limit=3", "limit=10000", "limit=10001", "limit=0", "limit=-1", "limit=x", "limit="} {
		target := "status/tsdb?" + params
		want, got := do(t, reference, http.MethodGet, target, nil), do(t, ours, http.MethodGet, target, nil)
		require.Equal(t, want.Code, got.Code, "%s: %s", params, got.Body)
		require.Equal(t, want.Header(), got.Header(), params)
		if want.Code == http.StatusOK {
			require.Equal(t, want.Body.String(), got.Body.String(), params)
		} else {
			require.JSONEq(t, want.Body.String(), got.Body.String(), params)
		}
	}

	q, err = New(testConfig(t), nil, &tsdbExtras{t: t}, nil, nil, noLimits, clock, nopLog, nil)
	require.NoError(t, err)
	w := do(t, q.Handler("/prometheus"), http.MethodGet, "status/tsdb", nil)
	require.JSONEq(t, `{"status":"success","data":{"headStats":{"numSeries":0,"numLabelPairs":0,"chunkCount":0,"minTime":0,`+
		`"maxTime":0},"seriesCountByMetricName":[],"labelValueCountByLabelName":[],"memoryInBytesByLabelName":[],`+
		`"seriesCountByLabelValuePair":[]}}`, w.Body.String(), "a tenant without data")
}
