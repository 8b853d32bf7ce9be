package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/cluster"
	"github.com/duramendb/duramen/e2e/process"
	"github.com/duramendb/duramen/internal/loadgen"
	"github.com/duramendb/duramen/internal/loadplan"
	"github.com/duramendb/duramen/internal/remotewrite"
	"github.com/duramendb/duramen/internal/seriesgen"
)

// shape is which processes there are.
type shape struct {
	title   string
	members []cluster.Member
	// copies is the replication factor, remote how many of the copies go over the wire.
	copies, remote int
}

var shapes = map[string]shape{
	"prometheus": {title: "Prometheus", copies: 1},
	"one":        {title: "one process, one copy", members: []cluster.Member{{Name: "node-0", Target: "all"}}, copies: 1},
	"separate": {title: "a distributor and three ingesters", members: []cluster.Member{
		{Name: "ingester-a-0", Target: "ingester", Zone: "a"},
		{Name: "ingester-b-0", Target: "ingester", Zone: "b"},
		{Name: "ingester-c-0", Target: "ingester", Zone: "c"},
		{Name: "front-0", Target: "distributor,querier", Zone: "a"},
	}, copies: 3, remote: 3},
	"all": {title: "three processes with all roles", members: []cluster.Member{
		{Name: "node-a-0", Target: "all", Zone: "a"},
		{Name: "node-b-0", Target: "all", Zone: "b"},
		{Name: "node-c-0", Target: "all", Zone: "c"},
	}, copies: 3, remote: 2},
}

func shapeNames() []string { return slices.Sorted(maps.Keys(shapes)) }

const (
	// settle is how long CPU is counted after the last answer, for work that is put off.
	settle = 5 * time.Second
	// attempts bounds how often a request is sent: on a machine that has other work some are answered with 503. What a repeated
	// one costs counts.
	attempts = 5
	// startTimeout bounds the start.
	startTimeout = 2 * time.Minute
	tenant       = "bench"
)

// load is what each shape gets.
type load struct {
	series, scrapes         int
	perRequest, connections int
	interval                time.Duration
	seed                    uint64
	profile                 bool
}

// result is what one shape made of the load.
type result struct {
	samples    int
	took       time.Duration
	cpu        map[string]time.Duration // by process
	sent, back int64                    // bytes over gRPC connections, towards ingesters and from them
	p50, p99   time.Duration
}

const header = `| shape | CPU-µs per 1,000 samples | × one process | × Prometheus | of which distributors | samples/s | p50 ms | ` +
	`p99 ms | bytes to replicas per sample and replica | ` +
	"bytes of answers |\n|---|---|---|---|---|---|---|---|---|---|"

func (r result) micros() float64 {
	total := time.Duration(0)
	for _, cpu := range r.cpu {
		total += cpu
	}
	return float64(total.Microseconds()) / float64(r.samples) * 1000
}

func (r result) perReplica(s shape) float64 {
	return float64(r.sent) / float64(r.samples) / float64(s.remote)
}

func (r result) row(s shape, ofOne, ofPrometheus string) string {
	ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
	front, wire, back := "", "", ""
	for _, m := range s.members {
		if m.Target == "distributor,querier" {
			front = fmt.Sprintf("%.0f", float64(r.cpu[m.Name].Microseconds())/float64(r.samples)*1000)
		}
	}
	if s.remote > 0 {
		wire = fmt.Sprintf("%.2f", r.perReplica(s))
		back = fmt.Sprintf("%.2f", float64(r.back)/float64(r.samples)/float64(s.remote))
	}
	return fmt.Sprintf("| %s | %.0f | %s | %s | %s | %.0f k | %.1f | %.1f | %s | %s |", s.title, r.micros(), ofOne, ofPrometheus, front,
		float64(r.samples)/r.took.Seconds()/1000, ms(r.p50), ms(r.p99), wire, back)
}

// measure starts the processes on empty directories, loads and measures them.
func (l load) measure(ctx context.Context, binary string, s shape) (result, error) {
	r := result{samples: l.series * l.scrapes, cpu: map[string]time.Duration{}}
	dir, err := os.MkdirTemp("", "duramen-bench-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	c, err := cluster.New(cluster.Config{Binary: binary, Dir: dir, Args: []string{"-log.level=warn"}, Members: s.members})
	if err != nil {
		return r, err
	}
	defer c.Close()
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.Start(starting, c.Nodes...); err != nil {
		return r, err
	}
	to := &inTurn{}
	for _, n := range c.With("distributor") {
		own := client.Duramen(n.URL(), tenant)
		defer own.CloseIdle() //nolint:revive // there are three at most
		to.targets = append(to.targets, own)
		if err := ready(starting, own); err != nil {
			return r, err
		}
	}
	plan, err := l.plan()
	if err != nil {
		return r, err
	}
	if err := l.fill(ctx, c.Nodes, to, plan, &r); err != nil {
		return r, err
	}
	if r.sent, r.back, err = overWire(ctx, c); err != nil {
		return r, err
	}
	for _, n := range c.With("querier") {
		if err := l.check(ctx, client.Duramen(n.URL(), tenant), plan); err != nil {
			return r, err
		}
	}
	return r, nil
}

// measurePrometheus is measure for a Prometheus that receives the same load, with its defaults.
func (l load) measurePrometheus(ctx context.Context, _ string, _ shape) (result, error) {
	r := result{samples: l.series * l.scrapes, cpu: map[string]time.Duration{}}
	binary, err := process.Tool("prometheus")
	if err != nil {
		return r, err
	}
	dir, err := os.MkdirTemp("", "duramen-bench-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	spec, err := process.Prometheus(binary, dir, "global: {}\n", "--web.enable-remote-write-receiver", "--log.level=warn")
	if err != nil {
		return r, err
	}
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	p, _, err := process.StartReady(starting, spec)
	if err != nil {
		return r, err
	}
	defer p.Kill()
	plan, err := l.plan()
	if err != nil {
		return r, err
	}
	own := client.Prometheus(p.URL)
	defer own.CloseIdle()
	node := &cluster.Node{Member: cluster.Member{Name: "prometheus"}, Process: p}
	if err := l.fill(ctx, []*cluster.Node{node}, &inTurn{targets: []*client.Client{own}}, plan, &r); err != nil {
		return r, err
	}
	return r, l.check(ctx, client.Prometheus(p.URL), plan)
}

func (l load) plan() (*loadplan.Plan, error) {
	return loadplan.New(loadplan.Config{
		Seed: l.seed, Tenants: []string{tenant}, Series: l.series, Interval: l.interval, Scrapes: l.scrapes,
		Start:      time.Now().Add(-l.interval * time.Duration(l.scrapes)).UnixMilli(),
		PerRequest: l.perRequest, Protocols: []remotewrite.Version{remotewrite.V1}, Unnamed: true,
	})
}

// inTurn sends each request to the next of several targets, as a load balancer does.
type inTurn struct {
	targets []*client.Client
	n       atomic.Int64
}

// Push implements loadgen.Pusher.
func (p *inTurn) Push(ctx context.Context, v remotewrite.Version, body []byte) (remotewrite.Answer, error) {
	return p.targets[int(p.n.Add(1))%len(p.targets)].Writer().Push(ctx, v, body)
}

// ready waits until a write is stored: the distributor has then found its ingesters.
func ready(ctx context.Context, c *client.Client) error {
	for {
		a, err := c.Push(ctx, client.V1, nil)
		if err == nil && a.OK() {
			var members []struct{ Metric map[string]string }
			if err = c.Query(ctx, "up", client.Now(), &members); err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the cluster takes no writes: %v: %w", a, errors.Join(err, ctx.Err()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// fill sends the load and takes the CPU time of all processes.
func (l load) fill(ctx context.Context, nodes []*cluster.Node, to *inTurn, plan *loadplan.Plan, r *result) error {
	used := map[string]func() (loadgen.Usage, error){}
	for _, n := range nodes {
		done, err := loadgen.Watch(n.PID())
		if err != nil {
			return err
		}
		used[n.Name] = done
	}
	sender, err := loadgen.New(loadgen.Config{Connections: l.connections, Attempts: attempts, Spread: time.Hour}, plan,
		[]loadgen.Pusher{to}, loadgen.Options{})
	if err != nil {
		return err
	}
	var profiles sync.WaitGroup
	if l.profile {
		for _, n := range nodes {
			profiles.Go(func() { profile(ctx, n) })
		}
	}
	report, err := sender.Run(ctx)
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
	for name, done := range used {
		usage, err := done()
		if err != nil {
			return err
		}
		r.cpu[name] = usage.CPU
	}
	profiles.Wait()
	return nil
}

// profile writes ten seconds of a process' CPU time to a file that bears its name.
func profile(ctx context.Context, n *cluster.Node) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.Process.URL+"/debug/pprof/profile?seconds=10", nil)
	if err != nil {
		return
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if f, err := os.Create(n.Name + ".pprof"); err == nil {
		_, _ = io.Copy(f, resp.Body)
		_ = f.Close()
	}
}

var (
	bytesSent     = regexp.MustCompile(`\bbytes_sent:(\d+)`)
	bytesReceived = regexp.MustCompile(`\bbytes_received:(\d+)`)
)

// overWire returns the bytes that went over the connections to the gRPC servers of the cluster since these were opened, all
// framing above TCP included, as the kernel counts them.
func overWire(ctx context.Context, c *cluster.Cluster) (sent, back int64, err error) {
	for _, n := range c.With("ingester") {
		out, err := exec.CommandContext(ctx, "ss", "-tinH", "dst", n.RPC()).CombinedOutput()
		if err != nil {
			return 0, 0, fmt.Errorf("count bytes by ss: %w %s", err, out)
		}
		for re, sum := range map[*regexp.Regexp]*int64{bytesSent: &sent, bytesReceived: &back} {
			for _, m := range re.FindAllSubmatch(out, -1) {
				n, err := strconv.ParseInt(string(m[1]), 10, 64)
				if err != nil {
					return 0, 0, err
				}
				*sum += n
			}
		}
	}
	return sent, back, nil
}

// check asks for the number of samples of one series of every pod: a figure counts only when nothing is missing.
func (l load) check(ctx context.Context, c *client.Client, plan *loadplan.Plan) error {
	defer c.CloseIdle()
	pods := l.series / seriesgen.SeriesPerPod
	span := l.interval*time.Duration(l.scrapes+1) + time.Minute
	var vector []struct{ Value client.Point }
	err := c.Query(ctx, fmt.Sprintf("sum(count_over_time(up[%dms]))", span.Milliseconds()), plan.Begin(l.scrapes+1), &vector)
	if err == nil && (len(vector) != 1 || vector[0].Value.V != float64(pods*l.scrapes)) {
		err = errors.New("wrong answer")
	}
	if err != nil {
		return fmt.Errorf("the cluster returns %v of %d samples of up: %w", vector, pods*l.scrapes, err)
	}
	return nil
}
