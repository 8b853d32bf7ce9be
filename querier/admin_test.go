package querier

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// adminLimits are limits that a test changes while queries run.
type adminLimits struct {
	Limits

	retention time.Duration
	deletions int
}

func (l *adminLimits) RetentionPeriod(string) time.Duration { return l.retention }
func (l *adminLimits) MaxDeletions(string) int              { return l.deletions }

// shipped makes the blocks of a pair those of an ingester.
func (p *pair) shipped() *pair {
	for i := range p.manifests.current.Blocks {
		p.manifests.current.Blocks[i].Writer = manifest.IngesterWriter + "0"
	}
	return p
}

// delete deletes the same at both; start and end are in milliseconds.
func (p *pair) delete(t *testing.T, start, end int64, selectors ...string) {
	t.Helper()
	f := url.Values{"match[]": selectors, "start": {seconds(start)}, "end": {seconds(end)}}
	w := do(t, p.ours, http.MethodPost, "admin/tsdb/delete_series", f)
	require.Equal(t, http.StatusNoContent, w.Code, w.Body)
	for _, s := range selectors {
		matchers, err := parser.NewParser(parser.Options{}).ParseMetricSelector(s)
		require.NoError(t, err)
		// One after the other: DB.Delete lets blocks sort the same matchers at the same time.
		for _, b := range p.whole.Blocks() {
			require.NoError(t, b.Delete(t.Context(), start, end, slices.Clone(matchers)...))
		}
		require.NoError(t, p.whole.Head().Delete(t.Context(), start, end, slices.Clone(matchers)...))
	}
}

func seconds(ms int64) string { return fmt.Sprintf("%.3f", float64(ms)/1000) }

func ago(d time.Duration) int64 { return now.Add(-d).UnixMilli() }

// TestDeletedSeriesAreThoseOfPrometheus: with the same deleted, all answers about samples are those of a Prometheus.
func TestDeletedSeriesAreThoseOfPrometheus(t *testing.T) {
	p := newPair(t).shipped()
	p.delete(t, ago(22*time.Hour), ago(14*time.Hour), `up{instance="1"}`)                // in the bucket
	p.delete(t, ago(3*time.Hour), ago(time.Hour), `requests_total{instance!="0"}`)       // in memory
	p.delete(t, ago(15*time.Hour), ago(2*time.Hour), `hist`, `special{kind=~"nan|inf"}`) // in both
	p.delete(t, math.MinInt64/2, ago(0), `{"weird.name"}`, `only_old`)                   // all
	p.delete(t, ago(16*time.Hour)+1, ago(16*time.Hour)+90_000, `fhist`)                  // in the middle of a chunk
	compared := 0
	for _, r := range requests() {
		if r.path != "query" && r.path != "query_range" {
			continue
		}
		want, ok := answered(t, p.reference, r)
		if !ok {
			continue
		}
		got := do(t, p.ours, http.MethodGet, r.path, r.form)
		require.Equal(t, want.Code, got.Code, "%s %v: %s", r.path, r.form, got.Body)
		unordered := !strings.Contains(r.form.Get("query"), "sort")
		require.Equal(t, normal(t, want.Body.Bytes(), unordered), normal(t, got.Body.Bytes(), unordered), "%v", r.form)
		compared++
	}
	require.Greater(t, compared, 100)
	for _, w := range []struct {
		window []string
		want   string
	}{
		{nil, `["fhist","hist","hist","only_new","requests_total","requests_total","requests_total","special","special",` +
			`"special","special","up","up","up"]`},
		{[]string{"start=" + at(20*time.Hour), "end=" + at(16*time.Hour)}, `["fhist","hist","hist","requests_total",` +
			`"requests_total","requests_total","special","special","special","special","up","up"]`},
		{[]string{"start=" + at(150*time.Minute), "end=" + at(130*time.Minute), "limit=3"}, `["fhist","requests_total","special"]`},
		{[]string{"start=" + at(16*time.Hour-time.Second), "end=" + at(16*time.Hour-89*time.Second), "match[]=fhist"}, `[]`},
	} {
		f := form(append([]string{`match[]={__name__=~".+"}`}, w.window...)...)
		if f.Has("match[]") && len(f["match[]"]) > 1 {
			f["match[]"] = f["match[]"][1:]
		}
		require.JSONEq(t, w.want, names(t, do(t, p.ours, http.MethodGet, "series", f)), "%v", w.window)
	}
}

// answered is the reference's answer, unless Prometheus panics: it does when a chunk is trimmed at both ends and deleted
// behind its end.
func answered(t *testing.T, h http.Handler, r request) (w *httptest.ResponseRecorder, ok bool) {
	t.Helper()
	defer func() { _ = recover() }()
	w = do(t, h, http.MethodGet, r.path, r.form)
	return w, !strings.Contains(w.Body.String(), "index out of range") && !strings.Contains(w.Body.String(), "unexpected error")
}

// names are the metric names of an answer of series.
func names(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	var answer struct{ Data []map[string]string }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer), w.Body)
	out := []string{}
	for _, lset := range answer.Data {
		out = append(out, lset[labels.MetricName])
	}
	data, err := json.Marshal(out)
	require.NoError(t, err)
	return string(data)
}

// remoteReadOfDeletedSeries: both forms of answer are those of a Prometheus with the same deleted, but for series
// without samples, of which Prometheus still sends those that it has in memory.
func remoteReadOfDeletedSeries(t *testing.T, p *pair) {
	p.delete(t, ago(25*time.Hour), ago(0), `up{instance="1"}`, `hist{le_kind="custom"}`)
	stock, answers := stockRead(p), 0
	for name, queries := range readQueries() {
		if strings.HasSuffix(name, " hinted") {
			continue
		}
		body := readRequest(t, []prompb.ReadRequest_ResponseType{samples}, queries...)
		want, got := decodeSamples(t, read(t, stock, body)), decodeSamples(t, read(t, p.ours, body))
		if lists := strings.HasSuffix(name, " series"); !lists {
			want = slices.DeleteFunc(want, func(s readSeries) bool { return len(s.samples) == 0 && s.labels != "" })
			requireSame(t, want, got, name+", samples")
		}
		require.NotContains(t, fmt.Sprint(got), `{__name__="up", instance="1"`, name)

		body = readRequest(t, []prompb.ReadRequest_ResponseType{streamed, samples}, queries...)
		want, _, err := decodeFrames(t, read(t, stock, body).Body)
		require.NoError(t, err)
		got, _, err = decodeFrames(t, read(t, p.ours, body).Body)
		require.NoError(t, err)
		requireSame(t, want, got, name+", chunks")
		answers += len(got)
	}
	require.Greater(t, answers, 150)
	require.Equal(t, http.StatusNoContent, do(t, p.ours, http.MethodDelete, "admin/tsdb/deletions/1", nil).Code)
}

// TestDeletedElsewhere shares what takes long to make.
func TestDeletedElsewhere(t *testing.T) {
	p := newPair(t).shipped()
	t.Run("remote read", func(t *testing.T) { remoteReadOfDeletedSeries(t, p) })
	t.Run("list, hasten and cancel", func(t *testing.T) { deletionsCome(t, p) })
}

// deletionsCome and go: exemplars and samples are left out, and a cancelled deletion shows them again.
func deletionsCome(t *testing.T, p *pair) {
	exemplars := func() string {
		f := form("query=requests_total", "start="+at(time.Hour), "end="+at(0))
		return do(t, p.ours, http.MethodGet, "query_exemplars", f).Body.String()
	}
	before, all := exemplars(), do(t, p.ours, http.MethodGet, "query", form("query=count_over_time(requests_total[20h])", "time="+at(0)))
	p.delete(t, ago(25*time.Hour), ago(5*time.Minute), `requests_total{instance="1"}`)
	after := exemplars()
	require.Equal(t, 11, strings.Count(before, "é<1"))
	require.Equal(t, 5, strings.Count(after, "é<1"))
	require.Equal(t, strings.Count(before, "é<2"), strings.Count(after, "é<2"))
	now := do(t, p.ours, http.MethodGet, "query", form("query=count_over_time(requests_total[20h])", "time="+at(0)))
	require.NotEqual(t, all.Body.String(), now.Body.String())

	list := do(t, p.ours, http.MethodGet, "admin/tsdb/deletions", nil)
	require.JSONEq(t, fmt.Sprintf(`{"status":"success","data":[{"id":2,"match":["requests_total{instance=\"1\"}"],
		"min_time":%d,"max_time":%d,"created_at":%d,"urgent":false,"pending_blocks":%d}]}`,
		ago(25*time.Hour), ago(5*time.Minute), ago(0), len(p.manifests.current.Blocks)), list.Body.String())
	require.Equal(t, http.StatusNoContent, do(t, p.ours, http.MethodPut, "admin/tsdb/clean_tombstones", nil).Code)
	require.True(t, p.manifests.current.Deletions[0].Urgent)

	require.Equal(t, http.StatusNoContent, do(t, p.ours, http.MethodDelete, "admin/tsdb/deletions/2", nil).Code)
	require.Equal(t, before, exemplars())
	again := do(t, p.ours, http.MethodGet, "query", form("query=count_over_time(requests_total[20h])", "time="+at(0)))
	require.Equal(t, all.Body.String(), again.Body.String())
	for id, code := range map[string]int{"2": http.StatusNotFound, "x": http.StatusBadRequest} {
		w := do(t, p.ours, http.MethodPost, "admin/tsdb/deletions/"+id, nil)
		require.Equal(t, code, w.Code, w.Body)
	}
}

// TestDeletionsAreRefusedAsByPrometheus compares status and text of what is wrong with a request.
func TestDeletionsAreRefusedAsByPrometheus(t *testing.T) {
	db := openDB(t)
	ours := administered(t, db, &fakeManifests{current: &manifest.Manifest{Version: 1}}, &adminLimits{Limits: noLimits})
	reference := referenceHandlerWith(db, nil, nil, true)
	for _, f := range []url.Values{
		nil, form("match[]="), form("match[]=up{"), form("match[]=sum(up)"), form("match[]={}"), form("match[]=up", "match[]=}"),
		form("match[]=up", "start=x"), form("match[]=up", "end=2026-13-01T00:00:00Z"), form("match[]=up", "start=2", "end=1"),
		form("match[]=nothing", "start="+v1.MinTime.Format(time.RFC3339Nano), "end="+v1.MaxTime.Format(time.RFC3339Nano)),
		form("match[]=nothing", "start=-1e300", "end=1e300"), form("match[]=nothing", "start=1.5"), form("start=x"),
	} {
		want := do(t, reference, http.MethodPost, "admin/tsdb/delete_series", f)
		got := do(t, ours, http.MethodPost, "admin/tsdb/delete_series", f)
		require.Equal(t, want.Code, got.Code, "%v: %s", f, got.Body)
		require.Equal(t, want.Body.String(), strings.TrimSpace(got.Body.String()), "%v", f)
	}
	for _, path := range []string{"delete_series", "clean_tombstones"} {
		got := do(t, ours, http.MethodGet, "admin/tsdb/"+path, nil)
		want := do(t, reference, http.MethodGet, "admin/tsdb/"+path, nil)
		require.Equal(t, want.Code, got.Code)
		require.Equal(t, "POST, PUT", got.Header().Get("Allow"))
	}
}

func TestDeletionsAreBounded(t *testing.T) {
	manifests, limits := &fakeManifests{current: &manifest.Manifest{Version: 1}}, &adminLimits{Limits: noLimits, deletions: 2}
	ours := administered(t, openDB(t), manifests, limits)
	for range 2 {
		require.Equal(t, http.StatusNoContent, do(t, ours, http.MethodPost, "admin/tsdb/delete_series", form("match[]=up")).Code)
	}
	w := do(t, ours, http.MethodPost, "admin/tsdb/delete_series", form("match[]=up"))
	require.Equal(t, http.StatusUnprocessableEntity, w.Code)
	require.Contains(t, w.Body.String(), "tenant t1 has 2 deletions")
	require.Contains(t, w.Body.String(), "the limit max_deletions is 2")
	limits.deletions = 3
	require.Equal(t, http.StatusNoContent, do(t, ours, http.MethodPost, "admin/tsdb/delete_series", form("match[]=up")).Code)

	limits.deletions = 0
	many := url.Values{}
	for range maxSelectors + 1 {
		many.Add("match[]", "up")
	}
	for _, f := range []url.Values{many, form("match[]=" + strings.Repeat("u", maxSelectorBytes+1))} {
		w := do(t, ours, http.MethodPost, "admin/tsdb/delete_series", f)
		require.Equal(t, http.StatusBadRequest, w.Code)
		require.Contains(t, w.Body.String(), "divide it")
	}
	require.Len(t, manifests.current.Deletions, 3)

	// What is yet to come is not deleted.
	f := form("match[]=up", "start="+at(-time.Hour))
	require.Equal(t, http.StatusNoContent, do(t, ours, http.MethodPost, "admin/tsdb/delete_series", f).Code)
	require.Len(t, manifests.current.Deletions, 3)

	// A tenant whose blocks nobody has looked at gets no manifest by it.
	manifests.current, manifests.unlisted = nil, blockID(7)
	w = do(t, ours, http.MethodPost, "admin/tsdb/delete_series", form("match[]=up"))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Nil(t, manifests.current)
}

// TestForeignBlocks shares what takes long to make.
func TestForeignBlocks(t *testing.T) {
	p := newPair(t)
	t.Run("retention is exact", func(t *testing.T) { retentionIsExact(t, p) })
	t.Run("what is backfilled later is not touched", func(t *testing.T) { backfilledLater(t, p) })
}

// retentionIsExact: the sample of the boundary is shown and the one a millisecond before is not, in both tiers, and a
// change of the limit counts at once.
func retentionIsExact(t *testing.T, p *pair) {
	for _, oldest := range []time.Duration{20 * time.Hour, 5 * time.Hour} {
		for _, plus := range []time.Duration{0, time.Millisecond, -time.Millisecond} {
			p.limits.retention = oldest + plus
			f := form("query=up{instance=\"0\"}[30h]", "time="+at(0))
			var answer struct {
				Data struct {
					Result []struct{ Values [][2]any }
				}
			}
			w := do(t, p.ours, http.MethodGet, "query", f)
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
			want := now.Add(-oldest)
			if plus < 0 {
				want = want.Add(time.Minute) // the next sample
			}
			require.InDelta(t, float64(want.UnixMilli())/1000, answer.Data.Result[0].Values[0][0], 0.0001, "%v", p.limits.retention)
		}
	}
	p.limits.retention = 2 * time.Hour
	for path, f := range map[string]url.Values{
		"series":                form("match[]=only_old"),
		"query":                 form("query=only_old", "time="+at(20*time.Hour)),
		"label/__name__/values": form("match[]=only_old"),
		"query_exemplars":       form("query=requests_total", "start="+at(24*time.Hour), "end="+at(3*time.Hour)),
		"labels":                form("start="+at(24*time.Hour), "end="+at(3*time.Hour)),
		"label/instance/values": form("start="+at(24*time.Hour), "end="+at(3*time.Hour)),
		"query_range":           form("query=up", "start="+at(24*time.Hour), "end="+at(3*time.Hour), "step=60"),
	} {
		w := do(t, p.ours, http.MethodGet, path, f)
		require.Equal(t, http.StatusOK, w.Code, path)
		require.Regexp(t, `"(data|result)":\[\]`, w.Body.String(), path)
	}
	p.limits.retention = 0
	require.Equal(t, `["only_old"]`, names(t, do(t, p.ours, http.MethodGet, "series", form("match[]=only_old"))))
}

// backfilledLater: a deletion means what was there, not a block that somebody uploads after it.
func backfilledLater(t *testing.T, p *pair) {
	// Its blocks are somebody's, made when the test runs, long after the clock of the querier.
	before := do(t, p.ours, http.MethodGet, "query_range", form("query=up", "start="+at(24*time.Hour), "end="+at(14*time.Hour), "step=60"))
	f := form("match[]=up")
	require.Equal(t, http.StatusNoContent, do(t, p.ours, http.MethodPost, "admin/tsdb/delete_series", f).Code)
	require.Len(t, p.manifests.current.Deletions, 1)
	after := do(t, p.ours, http.MethodGet, "query_range", form("query=up", "start="+at(24*time.Hour), "end="+at(14*time.Hour), "step=60"))
	require.Equal(t, before.Body.String(), after.Body.String())
	recent := do(t, p.ours, http.MethodGet, "query", form("query=up", "time="+at(0)))
	require.Contains(t, recent.Body.String(), `"result":[]`)
}

// administered is our API over recent samples alone, with its administration switched on.
func administered(t *testing.T, db *tsdb.DB, m Manifests, limits Limits) http.Handler {
	t.Helper()
	cfg := testConfig(t)
	cfg.EnableAdminAPI = true
	q, err := New(cfg, &tsdbRecent{db: db}, nil, brokenStore{}, m, limits, clock, nopLog, nil)
	require.NoError(t, err)
	return q.Handler("/prometheus")
}

// TestNothingIsDeletedOfADeletedTenant: what would be recorded would be in force when the tenant is brought back.
func TestNothingIsDeletedOfADeletedTenant(t *testing.T) {
	pending := manifest.Deletion{ID: 1, Selectors: []string{"up"}, MaxTime: now.UnixMilli()}
	m := &fakeManifests{current: &manifest.Manifest{Version: 1, NextDeletion: 2, Deletions: []manifest.Deletion{pending}}}
	h := administered(t, openDB(t), m, &adminLimits{Limits: noLimits})
	for _, c := range []struct{ method, path string }{
		{http.MethodPost, "delete_series"},
		{http.MethodPost, "clean_tombstones"},
		{http.MethodGet, "deletions"},
		{http.MethodDelete, "deletions/1"},
	} {
		m.change(func(m *manifest.Manifest) { m.Doomed = &manifest.TenantDeletion{RequestedAt: 1, GraceUntil: 2} })
		w := do(t, h, c.method, "admin/tsdb/"+c.path, form("match[]=up"))
		require.Equal(t, http.StatusGone, w.Code, "%s: %s", c.path, w.Body)
		require.Equal(t, []manifest.Deletion{pending}, m.current.Deletions, c.path)
		m.change(func(m *manifest.Manifest) { m.Doomed = nil })
		w = do(t, h, c.method, "admin/tsdb/"+c.path, form("match[]=up"))
		require.Less(t, w.Code, 300, "%s of a tenant that is brought back: %s", c.path, w.Body)
		m.change(func(m *manifest.Manifest) { m.Deletions = []manifest.Deletion{pending} })
	}
}

// TestAdministrationIsOffByDefault: as at Prometheus.
func TestAdministrationIsOffByDefault(t *testing.T) {
	q := newQuerier(t, &tsdbRecent{db: openDB(t)}, brokenStore{}, &fakeManifests{current: &manifest.Manifest{Version: 1}})
	db := openDB(t)
	for _, path := range []string{"delete_series", "clean_tombstones"} {
		want := do(t, referenceHandler(db, nil, nil), http.MethodPost, "admin/tsdb/"+path, form("match[]=up"))
		got := do(t, q.Handler("/prometheus"), http.MethodPost, "admin/tsdb/"+path, form("match[]=up"))
		require.Equal(t, want.Code, got.Code)
		require.Equal(t, want.Body.String(), strings.TrimSpace(got.Body.String()))
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/prometheus/api/v1/admin/tsdb/deletions", nil)
	w := httptest.NewRecorder()
	q.Handler("/prometheus").ServeHTTP(w, r.WithContext(tenant.WithID(r.Context(), tenantID)))
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Contains(t, w.Body.String(), "admin APIs disabled")
}

// TestRecentQueriesLearnOfDeletions: a tenant whose queries need no manifest is polled for what was deleted, and what is
// known of that is used without asking.
func TestRecentQueriesLearnOfDeletions(t *testing.T) {
	recent := points(usualCut, now.UnixMilli(), hour/4)
	rec := &fakeRecent{t: t, answer: func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return &listQuerier{points: recent}, duramenpb.Held{}, nil
	}}
	manifests := &fakeManifests{current: &manifest.Manifest{Version: 1}}
	q := newQuerier(t, rec, &fakeStore{t: t}, manifests)
	require.Equal(t, dumpPoints(t, recent, usualCut, now.UnixMilli()), ask(t, q, usualCut, now.UnixMilli()))
	require.Equal(t, []string{tenantID}, q.versions.due())
	_, err := manifests.Delete(t.Context(), tenantID, manifest.Deletion{
		Selectors: []string{`m{i="1"}`}, MaxTime: ago(3 * time.Hour), CreatedAt: ago(0),
	})
	require.NoError(t, err)
	shown := slices.DeleteFunc(slices.Clone(recent), func(p point) bool { return p.series == 1 && p.t <= ago(3*time.Hour) })
	require.Less(t, len(shown), len(recent))
	require.Equal(t, dumpPoints(t, shown, usualCut, now.UnixMilli()), ask(t, q, usualCut, now.UnixMilli()))
	require.Zero(t, manifests.asked)

	// A deletion that cannot be read is no deletion of nothing.
	manifests.change(func(m *manifest.Manifest) { m.Deletions[0].Selectors = []string{"sum(m)"} })
	require.Equal(t, errkind.Corrupt, errkind.Of(askError(t, q, usualCut, now.UnixMilli())))
}
