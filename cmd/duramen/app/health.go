package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/duramendb/duramen/internal/service"
)

// checkTimeout is how long an answer about health waits for one check: shorter than the timeouts of usual probes.
const checkTimeout = 3 * time.Second

// checker runs one check, at most once at a time: a check that hangs, as on a dead disk, is reported and not repeated.
type checker struct {
	name string
	fn   func(context.Context) error

	mu      sync.Mutex
	current *checkRun
}

type checkRun struct {
	began time.Time
	done  chan struct{} // closed when the check has returned
	err   error         // set before done is closed
	took  time.Duration
}

func newChecker(name string, fn func(context.Context) error) *checker {
	return &checker{name: name, fn: fn}
}

// checkResult is one line of /healthz.
type checkResult struct {
	Name            string  `json:"name"`
	State           string  `json:"state"` // ok or failing
	Error           string  `json:"error,omitempty"`
	DurationSeconds float64 `json:"duration_seconds"`
}

// check waits for an answer, at most checkTimeout. Callers at the same time share one run.
func (c *checker) check(ctx context.Context) checkResult {
	run := c.join()
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	select {
	case <-run.done:
		r := checkResult{Name: c.name, State: "ok", DurationSeconds: run.took.Seconds()}
		if run.err != nil {
			r.State, r.Error = "failing", run.err.Error()
		}
		return r
	case <-ctx.Done():
		took := time.Since(run.began)
		return checkResult{
			Name: c.name, State: "failing", DurationSeconds: took.Seconds(),
			Error: fmt.Sprintf("no answer for %s", took.Round(time.Millisecond)),
		}
	}
}

// join returns the run in progress or begins one. The run's goroutine is waited for in wait.
func (c *checker) join() *checkRun {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil {
		return c.current
	}
	run := &checkRun{began: time.Now(), done: make(chan struct{})}
	c.current = run
	go func() {
		// Not the request's context: the run is shared.
		ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
		defer cancel()
		err := c.fn(ctx)
		c.mu.Lock()
		defer c.mu.Unlock()
		run.err, run.took = err, time.Since(run.began)
		c.current = nil
		close(run.done)
	}()
	return run
}

// wait returns when no run is in progress.
func (c *checker) wait() {
	c.mu.Lock()
	run := c.current
	c.mu.Unlock()
	if run != nil {
		<-run.done
	}
}

// notReady says why this process should get no traffic, nil when it should. It looks at the own state only, not at the
// bucket: an outage of what all share must not take every process out of a load balancer.
func (a *App) notReady(ctx context.Context) error {
	if a.draining.Load() {
		return errors.New("stopping")
	}
	for i, r := range a.running {
		if r.service != nil && r.service.State() != service.Running {
			if r.name == "membership" && r.service.State() == service.Starting {
				return errors.New("joining the cluster: " + a.notActive())
			}
			return fmt.Errorf("%s is %s", r.name, r.service.State())
		}
		if r.name == "ingester" {
			if c := a.health[i].check(ctx); c.Error != "" {
				return errors.New("ingester: " + c.Error)
			}
		}
	}
	if a.ring != nil {
		if reason := a.notActive(); reason != "" {
			return errors.New("ring: " + reason)
		}
	}
	if !a.started.Load() {
		return errors.New("starting") // all parts run, and tenants are let in at the next instant
	}
	return nil
}

func (a *App) serveReady(w http.ResponseWriter, r *http.Request) {
	if err := a.notReady(r.Context()); err != nil {
		http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "ready")
}

// serveAlive answers as soon as the process listens: what Prometheus calls healthy.
func serveAlive(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "alive")
}

// serveHealth answers with all checks. It is for people and alerts, not for probes.
func (a *App) serveHealth(w http.ResponseWriter, r *http.Request) {
	answer := struct {
		Status string        `json:"status"` // ok or degraded
		Checks []checkResult `json:"checks"`
	}{"ok", make([]checkResult, len(a.health))}
	var wg sync.WaitGroup
	for i, c := range a.health {
		wg.Go(func() { answer.Checks[i] = c.check(r.Context()) })
	}
	wg.Wait()
	status := http.StatusOK
	for _, c := range answer.Checks {
		if c.State != "ok" {
			status, answer.Status = http.StatusServiceUnavailable, "degraded"
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(answer) // the client is gone when this fails
}
