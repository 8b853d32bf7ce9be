package loadverify

import (
	"bytes"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/loadledger"
	"github.com/duramendb/duramen/internal/loadplan"
	"github.com/duramendb/duramen/internal/seriesgen"
)

// The series that tests tamper with, by what they are in the generator's catalogue.
const (
	counterSeries = 11
	ratioSeries   = 44 // NaN at times
	flakySeries   = 45 // stale at times
	intSeries     = 46 // integer histogram
	floatSeries   = 47
)

func TestKeptRun(t *testing.T) {
	for name, change := range map[string]func(*loadplan.Config){
		"two tenants": nil,
		"churn":       func(c *loadplan.Config) { c.Churn, c.Interval = 40, time.Minute },
		"fast churn":  func(c *loadplan.Config) { c.Churn, c.Interval, c.Series = 100, 2*time.Minute, 50 },
		"one tenant":  func(c *loadplan.Config) { c.Tenants = []string{"anonymous"} },
		"long wait":   func(c *loadplan.Config) { c.Interval = time.Hour / 4 },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlan(t, change)
			r, err := verify(t, p, Acknowledged{}, serve(t, everything(p), nil))
			require.NoError(t, err)
			require.True(t, r.OK(), "%v", r.First)
			query, remote := r.Ways[Query], r.Ways[RemoteRead]
			require.Equal(t, p.Samples(), remote.Found[loadledger.Acknowledged])
			require.Zero(t, remote.Hidden)
			require.Equal(t, p.Samples(), query.Expected[loadledger.Acknowledged])
			require.Equal(t, p.Samples(), query.Found[loadledger.Acknowledged]+query.Hidden)
			require.Positive(t, query.Hidden, "stale markers")
			alive := 0
			for pod := range p.Pods() {
				if from, to := p.Alive(pod); from < to {
					alive += seriesgen.SeriesPerPod
				}
			}
			require.EqualValues(t, alive*len(p.Tenants()), query.Series)
		})
	}
}

// fates of single requests; all others are acknowledged.
type fates map[[3]int]loadledger.Fate

func (f fates) Fate(tenant, chunk, scrape int) loadledger.Fate {
	if fate, ok := f[[3]int{tenant, chunk, scrape}]; ok {
		return fate
	}
	return loadledger.Acknowledged
}

// TestEveryFaultIsSeen: whatever a server lost, changed or added is found, by the ways that can see it, and nothing else.
func TestEveryFaultIsSeen(t *testing.T) {
	p := newPlan(t, nil)
	gen := p.Generator(1)
	expected := func(series, scrape int) seriesgen.Sample { return gen.Expected(series, scrape) }
	// scrapeOf returns the first scrape at which the value of a series is as asked for.
	scrapeOf := func(series int, is func(seriesgen.Sample) bool) int {
		for scrape := range scrapes {
			if is(expected(series, scrape)) {
				return scrape
			}
		}
		t.Fatal("no such value")
		return 0
	}
	stale := scrapeOf(flakySeries, seriesgen.Sample.Stale)
	isNaN := func(s seriesgen.Sample) bool { return s.H == nil && s.FH == nil && math.IsNaN(s.V) }
	nan := -1
	nanSeries := ratioSeries
	for _, s := range []int{1, 9, 10, 44, 51, 59, 60, 94} { // all ratios
		for scrape := range scrapes {
			if isNaN(expected(s, scrape)) {
				nanSeries, nan = s, scrape
			}
		}
	}
	require.Positive(t, nan)
	both := func(kind Kind, n int64) map[string]map[Kind]int64 {
		return map[string]map[Kind]int64{Query: {kind: n}, RemoteRead: {kind: n}}
	}
	exactOnly := func(kind Kind, n int64) map[string]map[Kind]int64 {
		return map[string]map[Kind]int64{RemoteRead: {kind: n}}
	}
	change := func(c content, series, scrape int, to func(*seriesgen.Sample)) {
		of := c.of(p, 1, series)
		s := expected(series, scrape)
		to(&s)
		delete(of.samples, expected(series, scrape).T)
		of.samples[s.T] = s
	}
	remove := func(c content, series, scrape int) { delete(c.of(p, 1, series).samples, expected(series, scrape).T) }

	untouched := api(t, "a", everything(p)["a"])
	for name, tc := range map[string]struct {
		tamper func(c content)
		fates  fates
		want   map[string]map[Kind]int64
	}{
		"a float is lost":     {tamper: func(c content) { remove(c, counterSeries, 7) }, want: both(Missing, 1)},
		"the first is lost":   {tamper: func(c content) { remove(c, counterSeries, 0) }, want: both(Missing, 1)},
		"the last is lost":    {tamper: func(c content) { remove(c, counterSeries, scrapes-1) }, want: both(Missing, 1)},
		"a histogram is lost": {tamper: func(c content) { remove(c, intSeries, 7) }, want: both(Missing, 1)},
		"a stale marker is lost": {
			tamper: func(c content) { remove(c, flakySeries, stale) }, want: exactOnly(Missing, 1),
		},
		"a series is lost": {
			tamper: func(c content) { delete(c["b"], gen.Labels(counterSeries).String()) }, want: both(Missing, scrapes),
		},
		"a refused sample is there": {fates: fates{{1, 0, 7}: loadledger.Refused}},
		"an unknown sample is lost": {
			tamper: func(c content) { remove(c, counterSeries, 7); remove(c, intSeries, 7) },
			fates:  fates{{1, 0, 7}: loadledger.Unknown},
		},
		"an unknown sample has another value": {
			tamper: func(c content) { change(c, counterSeries, 7, func(s *seriesgen.Sample) { s.V++ }) },
			fates:  fates{{1, 0, 7}: loadledger.Unknown}, want: both(Wrong, 1),
		},
		"another value": {
			tamper: func(c content) {
				change(c, counterSeries, 7, func(s *seriesgen.Sample) { s.V = math.Nextafter(s.V, 0) })
			},
			want: both(Wrong, 1),
		},
		"another NaN": {
			tamper: func(c content) {
				change(c, nanSeries, nan, func(s *seriesgen.Sample) { s.V = math.Float64frombits(0x7ff8000000000077) })
			},
			want: exactOnly(Wrong, 1),
		},
		"no NaN": {
			tamper: func(c content) { change(c, nanSeries, nan, func(s *seriesgen.Sample) { s.V = 1 }) }, want: both(Wrong, 1),
		},
		"no stale marker": {
			tamper: func(c content) { change(c, flakySeries, stale, func(s *seriesgen.Sample) { s.V = 1 }) }, want: both(Wrong, 1),
		},
		"a stale marker for a value": {
			tamper: func(c content) {
				change(c, counterSeries, 7, func(s *seriesgen.Sample) { s.V = expected(flakySeries, stale).V })
			},
			want: map[string]map[Kind]int64{Query: {Missing: 1}, RemoteRead: {Wrong: 1}},
		},
		"another bucket": {
			tamper: func(c content) {
				change(c, intSeries, 7, func(s *seriesgen.Sample) {
					s.H = s.H.Copy()
					s.H.PositiveBuckets[3]++
					s.H.PositiveBuckets[4]--
					s.H.Count++
				})
			},
			want: both(Wrong, 1),
		},
		"another sum": {
			tamper: func(c content) {
				change(c, floatSeries, 7, func(s *seriesgen.Sample) { s.FH = s.FH.Copy(); s.FH.Sum++ })
			},
			want: both(Wrong, 1),
		},
		"float counts for integers": {
			tamper: func(c content) {
				change(c, intSeries, 7, func(s *seriesgen.Sample) { s.H, s.FH = nil, s.H.ToFloat(nil) })
			},
			want: exactOnly(Wrong, 1),
		},
		"a float for a histogram": {
			tamper: func(c content) { change(c, intSeries, 7, func(s *seriesgen.Sample) { s.H = nil }) }, want: both(Wrong, 1),
		},
		"never sent": {fates: fates{{1, 1, 7}: loadledger.NeverSent}, want: map[string]map[Kind]int64{
			Query:      {Invented: int64(seriesgen.SeriesPerPod) - staleIn(p, 1, 1, 7)},
			RemoteRead: {Invented: int64(seriesgen.SeriesPerPod)},
		}},
		"between two scrapes": {
			tamper: func(c content) {
				s := expected(counterSeries, 7)
				s.T++
				c.put("b", gen.Labels(counterSeries), s)
			},
			want: both(Invented, 1),
		},
		"after the end": {
			tamper: func(c content) {
				s := expected(counterSeries, scrapes-1)
				s.T += (30 * time.Minute).Milliseconds()
				c.put("b", gen.Labels(counterSeries), s)
			},
			want: both(Invented, 1),
		},
		"before the begin": {
			tamper: func(c content) {
				s := expected(counterSeries, 0)
				s.T -= (30 * time.Minute).Milliseconds()
				c.put("b", gen.Labels(counterSeries), s)
			},
			want: both(Invented, 1),
		},
		"at another time": {
			tamper: func(c content) { change(c, counterSeries, 7, func(s *seriesgen.Sample) { s.T++ }) },
			want: map[string]map[Kind]int64{
				Query: {Missing: 1, Invented: 1}, RemoteRead: {Missing: 1, Invented: 1},
			},
		},
		"a series of another tenant": {
			tamper: func(c content) {
				c.put("b", p.Generator(0).Labels(3), p.Generator(0).Expected(3, 7))
			},
			want: map[string]map[Kind]int64{Query: {Invented: 1}}, // by the list of all series
		},
		"a metric that there is not": {
			tamper: func(c content) {
				lset := labels.NewBuilder(gen.Labels(3)).Set(labels.MetricName, "made_up").Labels()
				c.put("b", lset, expected(3, 7))
			},
			// By the query itself, and by the list of all series.
			want: map[string]map[Kind]int64{Query: {Invented: 2}, RemoteRead: {Invented: 1}},
		},
		"a label more": {
			tamper: func(c content) {
				lset := labels.NewBuilder(gen.Labels(3)).Set("more", "1").Labels()
				c.put("b", lset, expected(3, 7))
			},
			want: map[string]map[Kind]int64{Query: {Invented: 2}, RemoteRead: {Invented: 1}},
		},
		"another run beside it": {
			tamper: func(c content) {
				lset := labels.NewBuilder(gen.Labels(3)).Set(loadplan.RunLabel, "8-12345678").Labels()
				c.put("b", lset, expected(3, 7))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := everything(p)
			if tc.tamper != nil {
				tc.tamper(c)
			}
			server := serveAPIs(t, map[string]http.Handler{"a": untouched, "b": api(t, "b", c["b"])}, nil)
			r, err := verify(t, p, tc.fates, server)
			require.NoError(t, err)
			for _, way := range []string{Query, RemoteRead} {
				require.Equal(t, tc.want[way], r.Ways[way].Differences, "%s: %v", way, r.First)
			}
			require.Equal(t, len(tc.want) == 0, r.OK())
			for _, d := range r.First {
				require.Equal(t, "b", d.Tenant)
				require.Contains(t, d.String(), string(d.Kind))
			}
		})
	}
}

// staleIn counts the stale markers of a pod at a scrape.
func staleIn(p *loadplan.Plan, tenant, pod, scrape int) int64 {
	n := int64(0)
	for slot := range seriesgen.SeriesPerPod {
		if p.Generator(tenant).Expected(pod*seriesgen.SeriesPerPod+slot, scrape).Stale() {
			n++
		}
	}
	return n
}

// TestSpoiledAnswers: what a TSDB cannot hold but an answer can say.
func TestSpoiledAnswers(t *testing.T) {
	p := newPlan(t, nil)
	s := p.Generator(0).Expected(counterSeries, 7)
	point := `[` + strings.TrimRight(strings.TrimRight(seconds(s.T), "0"), ".") + `,"` + (&sample{v: s.V}).String() + `"]`
	for name, tc := range map[string]struct {
		path  string
		spoil func(body []byte) []byte
		way   string
		want  map[Kind]int64
	}{
		"a sample twice": {"/query", func(b []byte) []byte {
			return bytes.Replace(b, []byte(point), []byte(point+","+point), 1)
		}, Query, map[Kind]int64{Doubled: 1}},
		"a series again": {"/read", func(b []byte) []byte { return append(b, b...) }, RemoteRead, nil},
		"an empty answer": {"/query", func([]byte) []byte {
			return []byte(`{"status":"success","data":{"resultType":"matrix","result":[]}}`)
		}, Query, nil},
	} {
		t.Run(name, func(t *testing.T) {
			spoiled := false
			server := serve(t, everything(p), func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					rec := httptest.NewRecorder()
					next.ServeHTTP(rec, r)
					body := rec.Body.Bytes()
					if strings.HasSuffix(r.URL.Path, tc.path) {
						changed := tc.spoil(bytes.Clone(body))
						spoiled = spoiled || !bytes.Equal(changed, body)
						body = changed
					}
					w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
					w.WriteHeader(rec.Code)
					_, _ = w.Write(body)
				})
			})
			v, err := New(Config{Ways: []string{tc.way}, Connections: 1, PerQuery: 2000}, p, Acknowledged{}, server)
			require.NoError(t, err)
			r, err := v.Run(t.Context())
			require.NoError(t, err)
			require.True(t, spoiled)
			got := r.Ways[tc.way]
			switch {
			case tc.want != nil:
				require.Equal(t, tc.want, got.Differences, "%v", r.First)
			case tc.way == RemoteRead:
				require.Equal(t, map[Kind]int64{Doubled: p.Samples()}, got.Differences)
				require.Equal(t, p.Samples(), got.Of(Doubled, loadledger.Unknown, loadledger.Acknowledged))
				require.Zero(t, got.Of(Doubled, loadledger.NeverSent))
			default:
				require.Equal(t, p.Samples()-got.Hidden, got.Differences[Missing])
			}
		})
	}
}

// TestTrouble: an answer that cannot be had is an error, one that comes late is an answer.
func TestTrouble(t *testing.T) {
	p := newPlan(t, func(c *loadplan.Config) { c.Tenants, c.Series = []string{"a"}, 50 })
	c := everything(p)
	var n atomic.Int64
	for name, tc := range map[string]struct {
		serve http.HandlerFunc // nil for the answer itself
		want  string
	}{
		"unavailable for a while": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, ""},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5000")
			_, _ = io.WriteString(w, `{"status":`)
		}, ""},
		"no such path": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "nothing here", 404) }, "answered 404: nothing here"},
		"no JSON":      {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, "is expected"},
		"an error": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"status":"error","errorType":"execution","error":"broken"}`)
		}, "execution: broken"},
		"a vector": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
		}, "a matrix"},
	} {
		t.Run(name, func(t *testing.T) {
			n.Store(0)
			server := serve(t, c, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.HasSuffix(r.URL.Path, "/query") && n.Add(1) == 1 {
						tc.serve(w, r)
						return
					}
					next.ServeHTTP(w, r)
				})
			})
			r, err := verify(t, p, Acknowledged{}, server)
			if tc.want != "" {
				require.ErrorContains(t, err, tc.want)
				require.ErrorContains(t, err, `tenant "a"`)
				return
			}
			require.NoError(t, err)
			require.True(t, r.OK(), "%v", r.First)
		})
	}
}

func TestWarningsAreReported(t *testing.T) {
	p := newPlan(t, func(c *loadplan.Config) { c.Tenants, c.Series = []string{"a"}, 50 })
	server := serve(t, everything(p), func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			body := rec.Body.Bytes()
			if strings.HasSuffix(r.URL.Path, "/query") {
				body = bytes.Replace(body, []byte(`{"status"`), []byte(`{"warnings":["lost a block"],"status"`), 1)
			}
			_, _ = w.Write(body)
		})
	})
	v, err := New(Config{Ways: []string{Query}, Connections: 2, PerQuery: 500}, p, Acknowledged{}, server)
	require.NoError(t, err)
	r, err := v.Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"lost a block"}, r.Warnings)
}

// TestSampledAnswers: a server that streams no chunks is read as well.
func TestSampledAnswers(t *testing.T) {
	p := newPlan(t, nil)
	c := everything(p)
	delete(c.of(p, 0, intSeries).samples, p.Generator(0).Expected(intSeries, 3).T)
	reads := 0
	server := serve(t, c, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/read") {
				body, _ := io.ReadAll(r.Body)
				raw, err := s2.Decode(nil, body)
				var question prompb.ReadRequest
				if err != nil || question.Unmarshal(raw) != nil {
					http.Error(w, "bad question", http.StatusBadRequest)
					return
				}
				question.AcceptedResponseTypes = nil
				raw, _ = question.Marshal()
				r.Body = io.NopCloser(bytes.NewReader(s2.EncodeSnappy(nil, raw)))
				reads++
			}
			next.ServeHTTP(w, r)
		})
	})
	v, err := New(Config{Ways: []string{RemoteRead}, Connections: 1, PerQuery: 2000}, p, Acknowledged{}, server)
	require.NoError(t, err)
	r, err := v.Run(t.Context())
	require.NoError(t, err)
	require.Positive(t, reads)
	require.Equal(t, map[Kind]int64{Missing: 1}, r.Ways[RemoteRead].Differences)
	require.Equal(t, p.Samples()-1, r.Ways[RemoteRead].Found[loadledger.Acknowledged])
}

func TestConfig(t *testing.T) {
	good := Config{Ways: []string{Query}, Connections: 1, PerQuery: 1}
	require.NoError(t, good.Validate())
	for name, change := range map[string]func(*Config){
		"no way": func(c *Config) { c.Ways = nil }, "another way": func(c *Config) { c.Ways = []string{"guess"} },
		"connections": func(c *Config) { c.Connections = 0 }, "samples": func(c *Config) { c.PerQuery = 0 },
		"margin": func(c *Config) { c.Margin = -1 },
	} {
		cfg := good
		change(&cfg)
		_, err := New(cfg, newPlan(t, nil), Acknowledged{}, nil)
		require.Error(t, err, name)
	}
	_, err := New(good, newPlan(t, func(c *loadplan.Config) { c.Unnamed = true }), Acknowledged{}, nil)
	require.ErrorContains(t, err, "has no name")
}

// TestPartsCoverEverything: whatever a series is called, exactly one part lists it.
func TestPartsCoverEverything(t *testing.T) {
	require.Equal(t, []string{""}, parts(400))
	names := len(seriesgen.Names()) + 1
	p := parser.NewParser(parser.Options{})
	for pods, want := range map[int]int{401: names, 19_999: names, 20_000: names * 11, 200_000: names * 101} {
		all := parts(pods)
		require.Len(t, all, want)
		var selectors [][]*labels.Matcher
		for _, part := range all {
			matchers, err := p.ParseMetricSelector(`{load_run="x"` + part + `}`)
			require.NoError(t, err)
			selectors = append(selectors, matchers)
		}
		for _, metric := range []string{"up", "made_up", "upper", "db_pool_connections"} {
			for _, pod := range []string{"", "a", "x-00017", "x-00999", "y-12345", "7"} {
				lset := labels.FromStrings(labels.MetricName, metric, "load_run", "x", "pod", pod)
				matching := 0
				for _, matchers := range selectors {
					if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(lset.Get(m.Name)) }) {
						matching++
					}
				}
				require.Equal(t, 1, matching, "%s of %d pods", lset, pods)
			}
		}
	}
}
