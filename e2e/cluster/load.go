package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/s2"
	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/internal/loadledger"
	"github.com/duramendb/duramen/internal/loadplan"
	"github.com/duramendb/duramen/internal/loadverify"
	"github.com/duramendb/duramen/internal/remotewrite"
	"github.com/duramendb/duramen/internal/seriesgen"
)

// LoadConfig says what is written and asked.
type LoadConfig struct {
	Seed   uint64
	Tenant string
	// Pods are written, of 50 series each, PerRequest pods in a request: every Interval one sample of each, Scrapes times.
	Pods, PerRequest, Scrapes int
	Interval                  time.Duration
	// Start is the time of the first sample. A start in the past is written as fast as it goes.
	Start time.Time
	// GiveUp is one in how many requests without an answer is not sent again, so that its samples stay unknown; 0 is none.
	GiveUp int
	// Askers is how many queries are under way at the same time.
	Askers int
}

// Load writes the samples of a plan through several nodes, in real time, and asks several nodes for them. As behind a load
// balancer, who cannot be connected to or is not ready is passed over, which is no failure; whatever else goes wrong is
// one.
type Load struct {
	// Writes and Queries are what happened.
	Writes, Queries Record

	cfg   LoadConfig
	plan  *loadplan.Plan
	fates *fates
	http  *http.Client

	mu      sync.Mutex
	writeTo []string
	askOf   []string
	newest  []int           // by chunk: the scrape behind the newest that was claimed
	unready map[string]bool // by address, as of the last look
	turn    atomic.Int64
}

// NewLoad checks cfg; it sends nothing.
func NewLoad(cfg LoadConfig, writeTo, askOf []string) (*Load, error) {
	if cfg.Start.IsZero() {
		cfg.Start = time.Now()
	}
	plan, err := loadplan.New(loadplan.Config{
		Seed: cfg.Seed, Tenants: []string{cfg.Tenant}, Series: cfg.Pods * seriesgen.SeriesPerPod, Histograms: true,
		Start: cfg.Start.UnixMilli(), Interval: cfg.Interval, Scrapes: cfg.Scrapes,
		PerRequest: cfg.PerRequest * seriesgen.SeriesPerPod, Protocols: []remotewrite.Version{remotewrite.V1, remotewrite.V2},
	})
	if err != nil {
		return nil, err
	}
	return &Load{
		cfg: cfg, plan: plan, fates: newFates(plan.Chunks(), cfg.Scrapes), writeTo: writeTo, askOf: askOf,
		newest: make([]int, plan.Chunks()), unready: map[string]bool{},
		http: &http.Client{
			Timeout:   requestTimeout,
			Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
		},
	}, nil
}

const (
	// requestTimeout is how long a client waits for an answer: as long as Prometheus does by default.
	requestTimeout = 30 * time.Second
	// retryEvery is how long a sender waits after an attempt that was not acknowledged.
	retryEvery = 50 * time.Millisecond
	// askEvery is the pause of an asker, so that questions do not take the whole machine.
	askEvery = 20 * time.Millisecond
	// readyEvery is how often a balancer asks nodes whether they are ready.
	readyEvery = 100 * time.Millisecond
	// recent is how many scrapes most questions are about.
	recent = 20
	// first is the first scrape that is asked for while the load runs. What is older than the tenant's first write to a disk
	// may be in the bucket alone, and is not answered without it.
	first = 10
)

// Targets replaces the nodes that are written to and asked.
func (l *Load) Targets(writeTo, askOf []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writeTo, l.askOf = writeTo, askOf
}

// targets returns nodes in the order in which to try them. They take turns.
func (l *Load) targets(of *[]string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := int(l.turn.Add(1)) % len(*of)
	order := make([]string, 0, len(*of))
	for i := range *of {
		if target := (*of)[(next+i)%len(*of)]; !l.unready[target] {
			order = append(order, target)
		}
	}
	if len(order) == 0 {
		return slices.Clone(*of) // what all of them say is better than nothing
	}
	return order
}

// watch asks all nodes again and again whether they are ready, until ctx is over.
func (l *Load) watch(ctx context.Context) {
	for {
		l.mu.Lock()
		targets := append(slices.Clone(l.writeTo), l.askOf...)
		l.mu.Unlock()
		slices.Sort(targets)
		for _, target := range slices.Compact(targets) {
			ready := l.ready(ctx, target)
			l.mu.Lock()
			l.unready[target] = !ready
			l.mu.Unlock()
		}
		if wait(ctx, readyEvery) != nil {
			return
		}
	}
}

func (l *Load) ready(ctx context.Context, target string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target+"/ready", nil)
	if err != nil {
		return false
	}
	resp, err := l.http.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode == http.StatusOK
}

// Run writes and asks until ctx is over or everything is written. It returns an error for what is never right: a wrong
// answer, an answer other than success or 503, a refused sample.
func (l *Load) Run(ctx context.Context, rnd *rand.Rand) error {
	group, ctx := errgroup.WithContext(ctx)
	watching, stop := context.WithCancel(ctx)
	var watched sync.WaitGroup
	watched.Go(func() { l.watch(watching) })
	defer watched.Wait()
	defer stop()
	written := make(chan struct{})
	var writers errgroup.Group
	for chunk := range l.plan.Chunks() {
		own := fork(rnd)
		writers.Go(func() error { return l.write(ctx, own, chunk) })
	}
	group.Go(func() error {
		defer close(written)
		return writers.Wait()
	})
	for range l.cfg.Askers {
		own := fork(rnd)
		group.Go(func() error {
			for wait(ctx, askEvery) == nil {
				select {
				case <-written:
					return nil
				default:
				}
				if err := l.ask(ctx, own); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func fork(rnd *rand.Rand) *rand.Rand { return rand.New(rand.NewPCG(rnd.Uint64(), rnd.Uint64())) }

// wait sleeps unless ctx is over first.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// write sends the scrapes of one chunk, each when its time has come. Chunks are spread over the interval, so that some
// request is under way at any time.
func (l *Load) write(ctx context.Context, rnd *rand.Rand, chunk int) error {
	offset := l.cfg.Interval * time.Duration(chunk) / time.Duration(l.plan.Chunks())
	for scrape := range l.cfg.Scrapes {
		due := l.cfg.Start.Add(l.cfg.Interval*time.Duration(scrape) + offset)
		if wait(ctx, time.Until(due)) != nil {
			return nil //nolint:nilerr // the end of the load
		}
		l.mu.Lock()
		l.newest[chunk] = scrape + 1
		l.mu.Unlock()
		body := s2.EncodeSnappy(nil, l.plan.AppendRequest(nil, 0, chunk, scrape))
		for {
			done, err := l.push(ctx, chunk, scrape, body)
			if err != nil {
				return err
			}
			if done || l.cfg.GiveUp > 0 && rnd.IntN(l.cfg.GiveUp) == 0 {
				break
			}
			if wait(ctx, retryEvery) != nil {
				return nil //nolint:nilerr // the end of the load
			}
		}
	}
	return nil
}

// push sends one request once, to the first target that can be connected to.
func (l *Load) push(ctx context.Context, chunk, scrape int, body []byte) (done bool, err error) {
	l.fates.set(chunk, scrape, loadledger.Unknown)
	var a Attempt
	for _, target := range l.targets(&l.writeTo) {
		c := remotewrite.Client{URL: target + "/api/v1/push", Tenant: l.cfg.Tenant, UserAgent: "duramen-e2e", HTTP: l.http}
		begin := time.Now()
		answer, err := c.Push(ctx, l.plan.Version(chunk, scrape), body)
		a = Attempt{Begin: begin, Took: time.Since(begin), Target: target, OK: err == nil && answer.OK(), Status: answer.Status, Text: answer.Body}
		if err != nil {
			a.Text = err.Error()
			if notConnected(err) {
				continue
			}
		}
		if starting(a) {
			continue
		}
		break
	}
	if ctx.Err() != nil && !a.OK {
		return false, nil // cut off by the end of the load
	}
	l.Writes.add(a)
	switch {
	case a.OK:
		l.fates.set(chunk, scrape, loadledger.Acknowledged)
		return true, nil
	case a.Status == 0 || a.Status == http.StatusServiceUnavailable:
		return false, nil
	default:
		l.fates.set(chunk, scrape, loadledger.Refused)
		return false, fmt.Errorf("a write of scrape %d: %s", scrape, a)
	}
}

// notConnected reports whether a request failed before anybody could have seen it.
func notConnected(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// starting reports whether a process answered that it is not ready yet, in which state no balancer sends it anything.
func starting(a Attempt) bool {
	return a.Status == http.StatusServiceUnavailable && strings.Contains(a.Text, "starting: see /ready")
}

// ask asks once for the samples of a random pod and holds the answer against what is known.
func (l *Load) ask(ctx context.Context, rnd *rand.Rand) error {
	pod := rnd.IntN(l.plan.Pods())
	l.mu.Lock()
	to := l.newest[l.plan.Chunk(pod)]
	l.mu.Unlock()
	if to <= first {
		return nil
	}
	from := max(first, to-recent)
	if rnd.IntN(4) == 0 {
		from = first + rnd.IntN(to-first)
	}
	part := loadverify.Part{FirstPod: pod, LastPod: pod + 1, From: from, To: to}
	var a Attempt
	for _, target := range l.targets(&l.askOf) {
		begin := time.Now()
		found, warnings, err := loadverify.Look(ctx, l.plan, l.fates, &loadverify.Server{URL: target + "/prometheus", HTTP: l.http}, part)
		a = Attempt{Begin: begin, Took: time.Since(begin), Target: target, OK: err == nil, Status: http.StatusOK}
		if err != nil {
			a.Status, a.Text = 0, err.Error()
			var answer *loadverify.AnswerError
			if errors.As(err, &answer) {
				a.Status = answer.Status
			}
			if notConnected(err) || starting(a) {
				continue
			}
		}
		if len(found) > 0 || len(warnings) > 0 {
			return fmt.Errorf("a wrong answer of %s about pod %d, scrapes %d to %d: %v %v", target, pod, from, to-1, found, warnings)
		}
		break
	}
	if ctx.Err() != nil && !a.OK {
		return nil
	}
	l.Queries.add(a)
	if !a.OK && a.Status != 0 && a.Status != http.StatusServiceUnavailable {
		return fmt.Errorf("a query: %s", a)
	}
	return nil
}

// Verify reads everything back from a node, by queries and by remote read, and compares it with the ledger. Nothing may be
// written meanwhile.
func (l *Load) Verify(ctx context.Context, url string) (*loadverify.Report, error) {
	server := &loadverify.Server{URL: url + "/prometheus", HTTP: l.http}
	v, err := loadverify.New(loadverify.Config{
		Ways: []string{loadverify.Query, loadverify.RemoteRead}, Connections: 2, PerQuery: 100_000, Margin: time.Hour,
	}, l.plan, l.fates, server)
	if err != nil {
		return nil, err
	}
	return v.Run(ctx)
}

// Tally returns how many requests have each fate.
func (l *Load) Tally() string {
	return fmt.Sprintf("%d requests acknowledged, %d unknown, %d refused",
		l.fates.count(loadledger.Acknowledged), l.fates.count(loadledger.Unknown), l.fates.count(loadledger.Refused))
}

// Close closes the connections.
func (l *Load) Close() { l.http.CloseIdleConnections() }
