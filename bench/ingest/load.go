package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
	"github.com/duramendb/duramen/internal/loadgen"
	"github.com/duramendb/duramen/internal/loadplan"
	"github.com/duramendb/duramen/internal/seriesgen"
)

// settle is how long the server's CPU is counted after the last answer, for work that it puts off.
const settle = 5 * time.Second

// startTimeout bounds the start, replay included.
const startTimeout = 2 * time.Minute

// load is what each server gets.
type load struct {
	series, scrapes         int
	perRequest, connections int
	interval                time.Duration
	seed                    uint64
}

// result is what one server made of the load.
type result struct {
	samples           int
	took              time.Duration // from the first request to the last answer
	cpu               time.Duration // user and system of the server, settling included
	p50, p99          time.Duration
	peakRSS           int64
	heapLive, heapUse int64 // bytes after garbage collection, loaded minus empty
	ready, restart    time.Duration
	series            int
	unsupported       bool // the server does not speak this version
}

const header = `| server | remote write | CPU-µs per 1,000 samples | samples/s | p50 ms | p99 ms | peak RSS MiB | heap B/series, live (in use) | ` +
	"empty start to ready ms | after kill -9, start to ready ms |\n|---|---|---|---|---|---|---|---|---|---|"

func (r result) row(name string, v client.Version) string {
	if r.unsupported {
		return fmt.Sprintf("| %s | %d.0 | does not store it |", name, v)
	}
	ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
	return fmt.Sprintf("| %s | %d.0 | %.0f | %.0f k | %.1f | %.1f | %d | %d (%d) | %.0f | %.0f |", name, v,
		float64(r.cpu.Microseconds())/float64(r.samples)*1000, float64(r.samples)/r.took.Seconds()/1000, ms(r.p50), ms(r.p99),
		r.peakRSS>>20, r.heapLive/int64(r.series), r.heapUse/int64(r.series), ms(r.ready), ms(r.restart))
}

// run starts the server on an empty directory, loads it, measures it, and kills and restarts it.
func (l load) run(ctx context.Context, s server, dir string, v client.Version) (result, error) {
	r := result{series: l.series, samples: l.series * l.scrapes}
	plan, err := loadplan.New(loadplan.Config{
		Seed: l.seed, Tenants: []string{""}, Series: l.series, Interval: l.interval, Scrapes: l.scrapes,
		Start:      time.Now().Add(-l.interval * time.Duration(l.scrapes)).UnixMilli(),
		PerRequest: l.perRequest, Protocols: []client.Version{v}, Unnamed: true,
	})
	if err != nil {
		return r, err
	}
	spec, err := s.spec(dir)
	if err != nil {
		return r, err
	}
	p, ready, err := start(ctx, spec)
	if err != nil {
		return r, err
	}
	defer func() { p.Kill() }()
	r.ready = ready
	c := s.client(p.URL)
	defer c.CloseIdle()
	if err := l.fill(ctx, c, p, plan, &r); err != nil || r.unsupported {
		return r, err
	}
	p.Kill()
	again, restart, err := start(ctx, spec)
	if err != nil {
		return r, err
	}
	p, r.restart = again, restart
	return r, l.check(ctx, c, plan)
}

func start(ctx context.Context, spec process.Spec) (*process.Process, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return process.StartReady(ctx, spec)
}

// fill sends the load and takes the figures of the running server.
func (l load) fill(ctx context.Context, c *client.Client, p *process.Process, plan *loadplan.Plan, r *result) error {
	emptyLive, emptyUse, err := heap(ctx, c)
	if err != nil {
		return err
	}
	used, err := loadgen.Watch(p.PID())
	if err != nil {
		return err
	}
	sender, err := loadgen.New(loadgen.Config{Connections: l.connections, Attempts: 1, Spread: time.Hour}, plan,
		[]loadgen.Pusher{c.Writer()}, loadgen.Options{})
	if err != nil {
		return err
	}
	report, err := sender.Run(ctx)
	if errors.Is(err, loadgen.ErrNotStored) {
		r.unsupported = true
		return nil
	}
	if err != nil {
		return err
	}
	if report.Acknowledged != plan.Samples() {
		return fmt.Errorf("%d of %d samples were stored; answers by status: %v %s",
			report.Acknowledged, plan.Samples(), report.Statuses, report.Refusal)
	}
	r.took, r.p50, r.p99 = report.Took, report.Latency.Quantile(0.5), report.Latency.Quantile(0.99)

	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return ctx.Err()
	}
	usage, err := used()
	if err != nil {
		return err
	}
	r.cpu, r.peakRSS = usage.CPU, usage.Peak
	live, use, err := heap(ctx, c)
	r.heapLive, r.heapUse = live-emptyLive, use-emptyUse
	if err != nil {
		return err
	}
	return l.check(ctx, c, plan)
}

// check asks for the number of samples of one series of every pod: a figure counts only when nothing is missing.
func (l load) check(ctx context.Context, c *client.Client, plan *loadplan.Plan) error {
	pods := l.series / seriesgen.SeriesPerPod
	span := l.interval*time.Duration(l.scrapes+1) + time.Minute
	end := plan.Begin(l.scrapes + 1)
	deadline := time.Now().Add(30 * time.Second) // some show samples only after a while
	for {
		var vector []struct{ Value client.Point }
		err := c.Query(ctx, fmt.Sprintf("sum(count_over_time(up[%dms]))", span.Milliseconds()), end, &vector)
		if err == nil && len(vector) == 1 && vector[0].Value.V == float64(pods*l.scrapes) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server returns %v of %d samples of up: %w", vector, pods*l.scrapes, err)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var (
	heapAlloc = regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`)
	heapInuse = regexp.MustCompile(`(?m)^# HeapInuse = (\d+)$`)
)

// heap returns the bytes of live objects and of the spans that hold them after two garbage collections: the first lets
// finalizers and pools go, the second frees them.
func heap(ctx context.Context, c *client.Client) (live, use int64, err error) {
	var body string
	for range 2 {
		a, err := c.Get(ctx, "/debug/pprof/heap?gc=1&debug=1")
		if err != nil {
			return 0, 0, err
		}
		body = a.Body
	}
	for re, to := range map[*regexp.Regexp]*int64{heapAlloc: &live, heapInuse: &use} {
		m := re.FindStringSubmatch(body)
		if m == nil {
			return 0, 0, errors.New("the heap profile lacks the memory statistics")
		}
		if *to, err = strconv.ParseInt(m[1], 10, 64); err != nil {
			return 0, 0, err
		}
	}
	return live, use, nil
}
