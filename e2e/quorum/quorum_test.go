package quorum

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/distributor/replicate"
	"github.com/duramendb/duramen/ingester/ingestrpc"
	"github.com/duramendb/duramen/ring"
)

// load writes without pause and remembers what was acknowledged.
type load struct {
	c      *cluster
	base   int64
	series int

	mu      sync.Mutex
	acked   map[string]map[int64]bool
	written int
	failed  []string
	longest time.Duration
}

func seriesName(i int) labels.Labels {
	return labels.FromStrings("__name__", fmt.Sprintf("metric_%d", i%7), "instance", fmt.Sprint(i))
}

// run writes one sample of each series at a time until ctx is over. New series come all the while.
func (l *load) run(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		w := &prompb.WriteRequest{}
		at := l.base + int64(n)
		for i := range l.series {
			name := seriesName(i)
			if i%10 == 9 {
				name = seriesName(i + n/20*1000)
			}
			w.Timeseries = append(w.Timeseries, prompb.TimeSeries{
				Labels: prompb.FromLabels(name, nil), Samples: []prompb.Sample{{Timestamp: at, Value: float64(n)}},
			})
		}
		began := time.Now()
		answer := l.c.write(w)
		l.note(w, answer.Code, answer.Body.String(), time.Since(began))
	}
}

func (l *load) note(w *prompb.WriteRequest, code int, text string, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.written++
	l.longest = max(l.longest, took)
	if code != http.StatusOK {
		l.failed = append(l.failed, fmt.Sprint(code, " ", text))
		return
	}
	b := labels.NewScratchBuilder(2)
	for i := range w.Timeseries {
		name := w.Timeseries[i].ToLabels(&b, nil).String()
		if l.acked[name] == nil {
			l.acked[name] = map[int64]bool{}
		}
		l.acked[name][w.Timeseries[i].Samples[0].Timestamp] = true
	}
}

func (l *load) requests() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written
}

// more waits until n more requests are answered.
func (l *load) more(n int) {
	from := l.requests()
	require.Eventually(l.c.t, func() bool { return l.requests() >= from+n }, 30*time.Second, 2*time.Millisecond)
}

// underLoad runs story while a load writes, and then looks whether everything acknowledged is in two zones, and nothing
// else anywhere.
func underLoad(t *testing.T, c *cluster, story func(l *load)) *load {
	l := &load{c: c, base: time.Now().UnixMilli() - 60_000, series: 100, acked: map[string]map[int64]bool{}}
	ctx, cancel := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	writing.Go(func() { l.run(ctx) })
	func() {
		defer writing.Wait()
		defer cancel()
		l.more(20)
		story(l)
		l.more(20)
	}()
	l.check()
	return l
}

func (l *load) check() {
	t := l.c.t
	zones := map[string]map[int64]map[string]bool{}
	for _, n := range l.c.nodes {
		for name, held := range n.holds() {
			if zones[name] == nil {
				zones[name] = map[int64]map[string]bool{}
			}
			for at := range held {
				if zones[name][at] == nil {
					zones[name][at] = map[string]bool{}
				}
				zones[name][at][n.member.Zone] = true
			}
		}
	}
	checked := 0
	for name, times := range l.acked {
		for at := range times {
			if len(zones[name][at]) < 2 {
				require.Failf(t, "acknowledged on less than a quorum", "%s at %d is in zones %v", name, at, zones[name][at])
			}
			checked++
		}
	}
	require.Greater(t, checked, 3000)
	t.Logf("%d requests, %d samples acknowledged and held by a quorum, the longest took %s, %v of %v sections failed",
		l.written, checked, l.longest, l.c.gauge("duramen_replicate_section_failures_total"),
		l.c.gauge("duramen_replicate_sections_total"))
}

// Each ingester is stopped and started again, first gently, then suddenly. No write fails.
func TestRollingRestart(t *testing.T) {
	c := newCluster(t, nil)
	l := underLoad(t, c, func(l *load) {
		for _, suddenly := range []bool{false, true} {
			for _, n := range c.nodes {
				n.stop(suddenly)
				l.more(15)
				n.start()
				l.more(15)
			}
		}
	})
	require.Empty(t, l.failed)
	require.Positive(t, c.gauge("duramen_replicate_retries_total"), "references went stale")
}

// Ingesters come, and one drains, while samples are written.
func TestRingChanges(t *testing.T) {
	c := newCluster(t, nil)
	l := underLoad(t, c, func(l *load) {
		for _, zone := range []string{"a", "b", "c"} {
			c.add(zone, 1)
			c.turn()
			l.more(15)
		}
		c.nodes[1].member.State = ring.ReadOnly
		c.turn()
		l.more(15)
	})
	require.Empty(t, l.failed)
}

// Two of three restart at the same time: writes without a quorum are 503, and what was acknowledged holds.
func TestTwoAtATime(t *testing.T) {
	c := newCluster(t, func(cfg *replicate.Config, _ *ingestrpc.ClientConfig) { cfg.PushTimeout = 200 * time.Millisecond })
	l := underLoad(t, c, func(l *load) {
		c.nodes[0].stop(true)
		c.nodes[2].stop(true)
		l.more(3)
		c.nodes[0].start()
		l.more(10)
		c.nodes[2].start()
	})
	require.NotEmpty(t, l.failed)
	for _, text := range l.failed {
		require.Regexp(t, `^503 no quorum for 100 of 100 samples: [01] of 3 replicas answered where 2 are needed; ingester-`, text)
	}
}

// The host of one ingester goes silent while senders go on: nothing waits for it, and memory stays within its bounds.
func TestSilentHost(t *testing.T) {
	const late, inflight = 256 << 10, 1 << 20
	c := newCluster(t, func(cfg *replicate.Config, ccfg *ingestrpc.ClientConfig) {
		cfg.MaxLateBytes, ccfg.MaxInflightBytes, cfg.LateTimeout = late, inflight, 3*time.Second
	})
	l := underLoad(t, c, func(l *load) {
		c.nodes[1].cable.hang(true)
		most, mostInflight := 0.0, 0.0
		until := time.Now().Add(1500 * time.Millisecond)
		for time.Now().Before(until) {
			l.more(1)
			most = max(most, c.gauge("duramen_replicate_late_bytes"))
			mostInflight = max(mostInflight, c.gauge("duramen_replicate_inflight_bytes"))
		}
		c.nodes[1].cable.hang(false)
		t.Logf("at most %v bytes late, %v on their way", most, mostInflight)
		require.Positive(t, most)
		require.LessOrEqual(t, most, float64(late))
		require.LessOrEqual(t, mostInflight, float64(inflight))
	})
	require.Empty(t, l.failed)
}

// What no replica will ever take is refused by name, and says how many have it.
func TestRefusedByName(t *testing.T) {
	c := newCluster(t, nil)
	now := time.Now().UnixMilli()
	write := func(at ...int64) (int, string) {
		w := &prompb.WriteRequest{}
		for i, at := range at {
			w.Timeseries = append(w.Timeseries, prompb.TimeSeries{
				Labels: prompb.FromLabels(seriesName(i), nil), Samples: []prompb.Sample{{Timestamp: at, Value: float64(at)}},
			})
		}
		answer := c.write(w)
		return answer.Code, answer.Body.String()
	}
	code, _ := write(now, now)
	require.Equal(t, http.StatusOK, code)
	code, text := write(now+1, now-10*3600_000)
	require.Equal(t, http.StatusBadRequest, code)
	require.Contains(t, text, "1 of 2 samples are refused for good, the rest is stored\ntoo_old: 1 samples, for example {")
	require.Contains(t, text, "stored_replicas: 0 of 3")
	for _, n := range c.nodes { // Late answers are waited for, so that the second sample of series 0 is everywhere.
		require.Eventually(t, func() bool { return n.holds()[seriesName(0).String()][now+1] }, 5*time.Second, time.Millisecond)
		require.Len(t, n.holds()[seriesName(1).String()], 1)
	}
}
