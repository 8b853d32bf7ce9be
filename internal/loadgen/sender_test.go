package loadgen

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/internal/loadledger"
	"github.com/duramendb/duramen/internal/loadplan"
	"github.com/duramendb/duramen/internal/remotewrite"
	"github.com/duramendb/duramen/internal/seriesgen"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a receiver in memory: it notes what it takes, and answers as it is told.
type server struct {
	// answer decides about the n-th request, from 0; nil takes everything.
	answer func(n int) (remotewrite.Answer, error)
	takes  time.Duration

	mu       sync.Mutex
	requests int
	series   map[string][]int64 // times by labels, in order of arrival
	at       []time.Time        // when requests arrived
}

func (s *server) Push(ctx context.Context, v remotewrite.Version, body []byte) (remotewrite.Answer, error) {
	raw, err := s2.Decode(nil, body)
	if err != nil {
		return remotewrite.Answer{}, err
	}
	if err := wait(ctx, s.takes); err != nil {
		return remotewrite.Answer{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.requests
	s.requests++
	s.at = append(s.at, time.Now())
	a, err := remotewrite.Answer{Status: 204}, error(nil)
	if s.answer != nil {
		a, err = s.answer(n)
	}
	if err != nil || !a.OK() {
		return a, err
	}
	written, err := s.take(v, raw)
	if a.Header == nil && v == remotewrite.V2 {
		a.Header = http.Header{"X-Prometheus-Remote-Write-Samples-Written": {strconv.Itoa(written)}}
	}
	return a, err
}

func (s *server) take(v remotewrite.Version, raw []byte) (int, error) {
	b := labels.NewScratchBuilder(16)
	add := func(lset labels.Labels, t int64) { s.series[lset.String()] = append(s.series[lset.String()], t) }
	if v == remotewrite.V1 {
		var m prompb.WriteRequest
		if err := m.Unmarshal(raw); err != nil {
			return 0, err
		}
		for i := range m.Timeseries {
			add(m.Timeseries[i].ToLabels(&b, nil), m.Timeseries[i].Samples[0].Timestamp)
		}
		return len(m.Timeseries), nil
	}
	var m writev2.Request
	if err := m.Unmarshal(raw); err != nil {
		return 0, err
	}
	for i := range m.Timeseries {
		lset, err := m.Timeseries[i].ToLabels(&b, m.Symbols)
		if err != nil {
			return 0, err
		}
		add(lset, m.Timeseries[i].Samples[0].Timestamp)
	}
	return len(m.Timeseries), nil
}

func newServer() *server { return &server{series: map[string][]int64{}} }

// notes is a ledger in memory that holds the sender to its promises.
type notes struct {
	t       *testing.T
	mu      sync.Mutex
	claimed map[int]bool
	fates   map[request]loadledger.Fate
}

func newNotes(t *testing.T) *notes {
	return &notes{t: t, claimed: map[int]bool{}, fates: map[request]loadledger.Fate{}}
}

func (n *notes) Claim(scrape int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.claimed[scrape] = true
	return nil
}

func (n *notes) Note(tenant, chunk, scrape int, f loadledger.Fate) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.claimed[scrape] {
		n.t.Errorf("scrape %d was sent without a claim", scrape)
	}
	n.fates[request{tenant, chunk, scrape}] = f
	return nil
}

func (n *notes) count(f loadledger.Fate) int {
	count := 0
	for _, got := range n.fates {
		if got == f {
			count++
		}
	}
	return count
}

const scrapes = 20

func newPlan(t *testing.T, change func(*loadplan.Config)) *loadplan.Plan {
	t.Helper()
	cfg := loadplan.Config{
		Seed: 7, Tenants: []string{"a", "b"}, Series: 400, Start: time.Now().Add(-time.Hour).UnixMilli(), Interval: 15 * time.Second,
		Scrapes: scrapes, PerRequest: 150, Protocols: []remotewrite.Version{remotewrite.V1, remotewrite.V2},
	}
	if change != nil {
		change(&cfg)
	}
	p, err := loadplan.New(cfg)
	require.NoError(t, err)
	return p
}

func newSender(t *testing.T, cfg Config, p *loadplan.Plan, opts Options, to ...*server) *Sender {
	t.Helper()
	pushers := make([]Pusher, len(to))
	for i := range to {
		pushers[i] = to[i]
	}
	s, err := New(cfg, p, pushers, opts)
	require.NoError(t, err)
	return s
}

// requireAll checks that each server has each sample of its tenant once, each series in order.
func requireAll(t *testing.T, p *loadplan.Plan, to ...*server) {
	t.Helper()
	for tenant, srv := range to {
		for pod := range p.Pods() {
			from, until := p.Alive(pod)
			for slot := range seriesgen.SeriesPerPod {
				series := pod*seriesgen.SeriesPerPod + slot
				key := p.Generator(tenant).Labels(series).String()
				var want []int64
				for scrape := from; scrape < until; scrape++ {
					want = append(want, p.Generator(tenant).Time(series, scrape))
				}
				if got := srv.series[key]; !slices.Equal(want, got) {
					require.Equal(t, want, got, key)
				}
				delete(srv.series, key)
			}
		}
		require.Empty(t, srv.series)
	}
}

// TestEverySampleOnceInOrder: with any number of connections, churn and tenants.
func TestEverySampleOnceInOrder(t *testing.T) {
	for _, connections := range []int{1, 5} {
		for _, churn := range []float64{0, 60} {
			a, b, n := newServer(), newServer(), newNotes(t)
			p := newPlan(t, func(c *loadplan.Config) { c.Churn, c.Series, c.Interval = churn, 250, time.Minute })
			progress := 0
			var mu sync.Mutex
			s := newSender(t, Config{Connections: connections}, p, Options{Notes: n, OnSamples: func(n int) {
				mu.Lock()
				defer mu.Unlock()
				progress += n
			}}, a, b)
			r, err := s.Run(t.Context())
			require.NoError(t, err)
			requireAll(t, p, a, b)
			require.Equal(t, p.Samples(), r.Acknowledged)
			require.Equal(t, p.Samples(), r.Samples())
			require.EqualValues(t, p.Samples(), progress)
			require.Equal(t, int(r.Requests), n.count(loadledger.Acknowledged))
			require.Equal(t, map[int]int64{204: r.Requests}, r.Statuses)
			require.Positive(t, r.PerSecond())
		}
	}
}

// TestUntilItIsTold: requests without a final answer come again for as long as it takes, with growing pauses.
func TestUntilItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newServer(), newServer()
		a.answer = func(n int) (remotewrite.Answer, error) {
			switch {
			case n < 40:
				return remotewrite.Answer{}, errors.New("connection refused")
			case n == 40:
				return remotewrite.Answer{Status: 429, Header: http.Header{"Retry-After": {"20"}}}, nil
			case n%3 == 0:
				return remotewrite.Answer{Status: 503}, nil
			default:
				return remotewrite.Answer{Status: 204}, nil
			}
		}
		p := newPlan(t, nil)
		var troubles []string
		r, err := newSender(t, Config{Connections: 1}, p, Options{OnTrouble: func(text string) { troubles = append(troubles, text) }},
			a, b).Run(t.Context())
		require.NoError(t, err)
		requireAll(t, p, a, b)
		require.Equal(t, p.Samples(), r.Acknowledged)
		require.EqualValues(t, 40, r.Statuses[0])
		require.EqualValues(t, 1, r.Statuses[429])
		require.Equal(t, r.Statuses[0]+r.Statuses[429]+r.Statuses[503], r.Retries)
		require.Len(t, troubles, int(r.Retries))
		require.Contains(t, troubles[0], "connection refused")

		require.Equal(t, minPause, a.at[1].Sub(a.at[0]))
		require.Equal(t, 2*minPause, a.at[2].Sub(a.at[1]))
		require.Equal(t, maxPause, a.at[40].Sub(a.at[39]))
		require.Equal(t, 20*time.Second, a.at[41].Sub(a.at[40]), "the server asked for it")
	})
}

func TestFates(t *testing.T) {
	for name, tc := range map[string]struct {
		answer   remotewrite.Answer
		err      error
		attempts int
		want     loadledger.Fate
		stops    error
	}{
		"refused":             {answer: remotewrite.Answer{Status: 400, Body: "out of order"}, want: loadledger.Refused},
		"too large":           {answer: remotewrite.Answer{Status: 413}, want: loadledger.Refused},
		"given up":            {answer: remotewrite.Answer{Status: 503}, attempts: 3, want: loadledger.Unknown},
		"given up unanswered": {err: errors.New("reset"), attempts: 2, want: loadledger.Unknown},
		"wrong path":          {answer: remotewrite.Answer{Status: 404}, want: loadledger.Refused, stops: ErrTurnedAway},
		"not authorised":      {answer: remotewrite.Answer{Status: 401}, want: loadledger.Refused, stops: ErrTurnedAway},
		"redirected":          {answer: remotewrite.Answer{Status: 301}, want: loadledger.Refused, stops: ErrTurnedAway},
		"cannot be built":     {err: fmt.Errorf("%w: why", remotewrite.ErrRequest), want: loadledger.Unknown, stops: remotewrite.ErrRequest},
		"knows no 2.0":        {answer: remotewrite.Answer{Status: 415}, want: loadledger.Refused, stops: ErrNotStored},
		"ignores 2.0": {
			answer: remotewrite.Answer{Status: 204, Header: http.Header{"X": nil}}, want: loadledger.Unknown, stops: ErrNotStored,
		},
		"stores a part of it": {
			answer: remotewrite.Answer{Status: 204, Header: http.Header{"X-Prometheus-Remote-Write-Samples-Written": {"1"}}},
			want:   loadledger.Unknown, stops: ErrNotStored,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, n := newServer(), newNotes(t)
				a.answer = func(request int) (remotewrite.Answer, error) {
					if request >= 5 && request < 5+max(1, tc.attempts) {
						return tc.answer, tc.err
					}
					return remotewrite.Answer{Status: 204}, nil
				}
				p := newPlan(t, func(c *loadplan.Config) {
					c.Tenants, c.Protocols = c.Tenants[:1], []remotewrite.Version{remotewrite.V2}
				})
				r, err := newSender(t, Config{Connections: 1, Attempts: tc.attempts}, p, Options{Notes: n}, a).Run(t.Context())
				require.ErrorIs(t, err, tc.stops)
				require.Equal(t, 1, n.count(tc.want))
				if tc.stops != nil {
					require.Len(t, n.fates, 6)
					return
				}
				require.Equal(t, int(r.Requests)-1, n.count(loadledger.Acknowledged))
				require.Equal(t, p.Samples(), r.Samples())
				require.EqualValues(t, 100, r.Refused+r.Unknown) // the third chunk of the second scrape
				if tc.want == loadledger.Refused {
					require.Contains(t, r.Refusal, tc.answer.Body)
				}
			})
		})
	}
}

// TestRate: requests keep to the schedule, and a pause is caught up.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newServer(), newServer()
		p := newPlan(t, nil)
		begin := time.Now()
		r, err := newSender(t, Config{Connections: 2, Rate: 1000}, p, Options{}, a, b).Run(t.Context())
		require.NoError(t, err)
		require.InDelta(t, float64(p.Samples())/1000, r.Took.Seconds(), 1)
		half := begin.Add(r.Took / 2)
		early := 0
		for _, at := range append(a.at, b.at...) {
			if at.Before(half) {
				early++
			}
		}
		require.InDelta(t, r.Requests/2, early, 6)
	})
}

// TestNothingFromTheFuture: samples after now are sent when their time has come.
func TestNothingFromTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newServer(), newServer()
		p := newPlan(t, func(c *loadplan.Config) { c.Start = time.Now().Add(-10 * c.Interval).UnixMilli() })
		_, err := newSender(t, Config{Connections: 2}, p, Options{}, a, b).Run(t.Context())
		require.NoError(t, err)
		requireAll(t, p, a, b)
		require.Equal(t, p.Begin(scrapes), time.Now().UnixMilli())
	})
}

// TestSpread: a connection that is held up holds up the others before samples become too old.
func TestSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newServer(), newServer()
		a.takes = time.Second
		p := newPlan(t, nil)
		behind := 0
		b.answer = func(int) (remotewrite.Answer, error) {
			a.mu.Lock()
			defer a.mu.Unlock()
			behind = max(behind, (b.requests-1)/3-a.requests/3)
			return remotewrite.Answer{Status: 204}, nil
		}
		_, err := newSender(t, Config{Connections: 2, Spread: time.Minute}, p, Options{}, a, b).Run(t.Context())
		require.NoError(t, err)
		requireAll(t, p, a, b)
		require.LessOrEqual(t, behind, 5) // 4 scrapes are a minute
		require.GreaterOrEqual(t, behind, 3)
	})
}

// TestCancelled: whatever ends a run, what was under way is unknown, and a second run completes the first.
func TestCancelledAndResumed(t *testing.T) {
	path := t.TempDir() + "/ledger"
	synctest.Test(t, func(t *testing.T) {
		a, b := newServer(), newServer()
		a.takes, b.takes = time.Second, time.Second
		p := newPlan(t, nil)
		j, err := loadledger.Create(path, p.Config())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second+time.Millisecond)
		defer cancel()
		r, err := newSender(t, Config{Connections: 3}, p, Options{Notes: j}, a, b).Run(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, j.Close())
		require.Positive(t, r.Unknown)
		require.Equal(t, 7*3, a.requests+b.requests)

		j, ledger, err := loadledger.Resume(path)
		require.NoError(t, err)
		again, err := newSender(t, Config{Connections: 2}, p, Options{Notes: j, Ledger: ledger}, a, b).Run(t.Context())
		require.NoError(t, err)
		require.NoError(t, j.Close())
		require.Equal(t, p.Samples(), r.Acknowledged+again.Acknowledged)
		requireAll(t, p, a, b)
		ledger, err = loadledger.Read(path)
		require.NoError(t, err)
		for tenant := range 2 {
			for chunk := range p.Chunks() {
				for scrape := range scrapes {
					require.Equal(t, loadledger.Acknowledged, ledger.Fate(tenant, chunk, scrape))
				}
			}
		}
	})
}

// TestNotesThatFailStopTheRun: a run that cannot be remembered must not go on.
func TestNotesThatFailStopTheRun(t *testing.T) {
	p := newPlan(t, nil)
	j, err := loadledger.Create(t.TempDir()+"/ledger", p.Config())
	require.NoError(t, err)
	require.NoError(t, j.Close())
	a, b := newServer(), newServer()
	_, err = newSender(t, Config{Connections: 2}, p, Options{Notes: j}, a, b).Run(t.Context())
	require.Error(t, err)
	require.Zero(t, a.requests+b.requests)
}

func TestNewChecks(t *testing.T) {
	p := newPlan(t, nil)
	for name, cfg := range map[string]Config{
		"connections": {}, "rate": {Connections: 1, Rate: -1}, "attempts": {Connections: 1, Attempts: -1}, "spread": {Connections: 1, Spread: -1},
		"no rate": {Connections: 1, Rate: math.NaN()}, "endless rate": {Connections: 1, Rate: math.Inf(1)},
	} {
		_, err := New(cfg, p, make([]Pusher, 2), Options{})
		require.Error(t, err, name)
	}
	_, err := New(Config{Connections: 1}, p, nil, Options{})
	require.ErrorContains(t, err, "0 targets")
	require.Less(t, len(text(remotewrite.Answer{Status: 400, Body: strings.Repeat("x", 5000)})), 400)
}
