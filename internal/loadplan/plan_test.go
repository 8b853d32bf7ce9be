package loadplan

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/remotewrite"
	"github.com/duramendb/duramen/internal/seriesgen"
)

func config() Config {
	return Config{
		Seed: 7, Tenants: []string{"a", "b"}, Series: 500, Start: 1_790_000_000_000, Interval: 15 * time.Second, Scrapes: 240,
		Histograms: true, PerRequest: 150, Protocols: []remotewrite.Version{remotewrite.V1, remotewrite.V2},
	}
}

func newPlan(t *testing.T, change func(*Config)) *Plan {
	t.Helper()
	cfg := config()
	change(&cfg)
	p, err := New(cfg)
	require.NoError(t, err)
	return p
}

// TestEverySampleIsInOneRequest: the chunks of all scrapes are the living series of all scrapes, each once, and Alive says
// the same from the pod's side.
func TestEverySampleIsInOneRequest(t *testing.T) {
	for name, churn := range map[string]float64{"none": 0, "slow": 0.3, "fast": 50, "all in a scrape": 100} {
		t.Run(name, func(t *testing.T) {
			p := newPlan(t, func(c *Config) { c.Churn = churn; c.Interval = time.Minute })
			alive := make([][]int, p.Pods())
			var samples int64
			requests := 0
			for scrape := range p.Config().Scrapes {
				first, last := p.AliveChunks(scrape)
				next := -1
				for chunk := range p.Chunks() {
					from, to := p.Span(chunk, scrape)
					require.Equal(t, first <= chunk && chunk < last, from < to, "chunk %d of scrape %d", chunk, scrape)
					if from == to {
						continue
					}
					require.True(t, next < 0 || next == from, "spans follow each other")
					next = to
					for s := from; s < to; s += seriesgen.SeriesPerPod {
						pod := s / seriesgen.SeriesPerPod
						require.Equal(t, chunk, p.Chunk(pod))
						alive[pod] = append(alive[pod], scrape)
					}
					samples += int64(to - from)
					requests++
				}
			}
			require.Equal(t, p.Samples(), samples*2)
			require.Equal(t, p.Requests(), requests*2)
			for pod, scrapes := range alive {
				from, to := p.Alive(pod)
				require.Len(t, scrapes, to-from, "pod %d", pod)
				if len(scrapes) > 0 {
					require.Equal(t, from, scrapes[0])
					require.Equal(t, to-1, scrapes[len(scrapes)-1])
				}
			}
			if churn == 0.3 {
				// 239 minutes, 10 pods: 30 % of them in an hour.
				require.Equal(t, 10+11, p.Pods())
			}
		})
	}
}

func TestRequests(t *testing.T) {
	p := newPlan(t, func(c *Config) { c.Churn = 1 })
	versions := map[remotewrite.Version]int{}
	for scrape := range 20 {
		from, to := p.AliveChunks(scrape)
		for chunk := from; chunk < to; chunk++ {
			first, last := p.Span(chunk, scrape)
			v := p.Version(chunk, scrape)
			versions[v]++
			raw := p.AppendRequest(nil, 1, chunk, scrape)
			if v == remotewrite.V1 {
				var m prompb.WriteRequest
				require.NoError(t, m.Unmarshal(raw))
				require.Len(t, m.Timeseries, last-first)
			} else {
				var m writev2.Request
				require.NoError(t, m.Unmarshal(raw))
				require.Len(t, m.Timeseries, last-first)
			}
			for s := first; s < last; s += seriesgen.SeriesPerPod {
				at := p.Generator(1).Time(s, scrape)
				require.GreaterOrEqual(t, at, p.Begin(scrape))
				require.Less(t, at, p.Begin(scrape+1))
			}
		}
	}
	require.InDelta(t, versions[remotewrite.V1], versions[remotewrite.V2], 4)
}

func TestTenantsAndRunsDiffer(t *testing.T) {
	p := newPlan(t, func(*Config) {})
	a, b := p.Generator(0), p.Generator(1)
	require.NotEqual(t, a.Labels(3), b.Labels(3))
	require.NotEqual(t, a.Expected(3, 9).V, b.Expected(3, 9).V)
	require.Equal(t, "7-", p.cfg.Run()[:2])
	require.Equal(t, p.cfg.Run(), a.Labels(3).Get(RunLabel))

	for name, change := range map[string]func(*Config){
		"seed": func(c *Config) { c.Seed++ }, "series": func(c *Config) { c.Series += 50 },
		"start": func(c *Config) { c.Start++ }, "interval": func(c *Config) { c.Interval += time.Millisecond },
		"scrapes": func(c *Config) { c.Scrapes++ }, "histograms": func(c *Config) { c.Histograms = false },
		"churn": func(c *Config) { c.Churn = 0.1 },
	} {
		require.NotEqual(t, p.cfg.Run(), newPlan(t, change).cfg.Run(), name)
	}
	// How the samples travel does not change what they are.
	again := newPlan(t, func(c *Config) { c.PerRequest, c.Protocols = 500, c.Protocols[:1]; c.Tenants = c.Tenants[:1] })
	require.Equal(t, p.cfg.Run(), again.cfg.Run())
	require.Equal(t, a.Labels(3), again.Generator(0).Labels(3))
	require.Empty(t, newPlan(t, func(c *Config) { c.Unnamed = true }).Generator(0).Labels(3).Get(RunLabel))
}

func TestValidate(t *testing.T) {
	good := config()
	require.NoError(t, good.Validate())
	for name, change := range map[string]func(*Config){
		"no tenant":       func(c *Config) { c.Tenants = nil },
		"a tenant twice":  func(c *Config) { c.Tenants = []string{"a", "b", "a"} },
		"no series":       func(c *Config) { c.Series = 0 },
		"part of a pod":   func(c *Config) { c.Series = 70 },
		"small requests":  func(c *Config) { c.PerRequest = 20 },
		"odd requests":    func(c *Config) { c.PerRequest = 120 },
		"no interval":     func(c *Config) { c.Interval = 0 },
		"odd interval":    func(c *Config) { c.Interval = 1500 * time.Microsecond },
		"no scrapes":      func(c *Config) { c.Scrapes = 0 },
		"endless":         func(c *Config) { c.Scrapes = math.MaxInt },
		"negative churn":  func(c *Config) { c.Churn = -1 },
		"no churn at all": func(c *Config) { c.Churn = math.NaN() },
		"no protocol":     func(c *Config) { c.Protocols = nil },
		"protocol 3":      func(c *Config) { c.Protocols = []remotewrite.Version{3} },
	} {
		cfg := config()
		change(&cfg)
		require.Error(t, cfg.Validate(), name)
		_, err := New(cfg)
		require.Error(t, err, name)
	}
	cfg := config()
	cfg.Series, cfg.Churn, cfg.Scrapes = 5_000_000, 100, 10_000
	_, err := New(cfg)
	require.ErrorContains(t, err, "are the most")
}
