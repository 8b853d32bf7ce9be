// Package load is the command that sends a seeded run of samples by remote write, as Prometheus would, and says how the
// server took it. It proves nothing about what was stored. Read package loadgen next for how it sends, and
// cmd/duramenctl/verify for the proof.
package load

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/duramendb/duramen/cmd/duramenctl/runflags"
	"github.com/duramendb/duramen/internal/buildinfo"
	"github.com/duramendb/duramen/internal/cli"
	"github.com/duramendb/duramen/internal/loadgen"
	"github.com/duramendb/duramen/internal/loadledger"
	"github.com/duramendb/duramen/internal/loadplan"
	"github.com/duramendb/duramen/internal/remotewrite"
)

// settings are the flags.
type settings struct {
	server   cli.Server
	pushPath string
	run      runflags.Flags
	send     loadgen.Config
	timeout  time.Duration
	ledger   string
	resume   bool
	pid      int

	used    loadgen.Usage // what the process of pid took
	usedErr error
}

func (s *settings) registerFlags(f *flag.FlagSet) {
	s.server.RegisterFlags(f)
	s.run.Register(f)
	f.StringVar(&s.pushPath, "push-path", "/api/v1/push", "The path that takes writes; a Prometheus has /api/v1/write.")
	f.IntVar(&s.send.Connections, "connections", 4, "How many requests are under way at a time. A series stays with one, so that its samples arrive in order.")
	f.Float64Var(&s.send.Rate, "rate", 0, "How many samples a second to send, 0 for as many as the server takes. What a pause left behind is caught up.")
	f.IntVar(&s.send.Attempts, "attempts", 0, "How often a request is sent at most, 0 for until it is answered for good. Sending again is safe.")
	f.DurationVar(&s.send.Spread, "spread", 10*time.Minute, "How far connections may be apart in the time of the samples.")
	f.DurationVar(&s.timeout, "timeout", time.Minute, "How long one request may take.")
	f.StringVar(&s.ledger, "ledger", "", "The file that remembers what became of each request, for verify. It must not exist yet.")
	f.BoolVar(&s.resume, "resume", false, "Go on with the run of the ledger where it ended.")
	f.IntVar(&s.pid, "pid", 0, "The process id of the server, to report its CPU time and memory.")
}

// Command returns the command.
func Command() cli.Command {
	var s settings
	return cli.Command{
		Name: "load", Args: "[flags]", Summary: "send seeded series by remote write, and measure how they are taken",
		Long: `The series are those of a Kubernetes cluster: counters with resets, gauges, ratios with NaN, stale markers, native
histograms. Every sample follows from the flags, so that "duramenctl verify" can tell what must be there. They bear the
label ` + loadplan.RunLabel + ` with the name of the run.

Answers 5xx and 429 and lost connections are repeated, with growing pauses and with regard to Retry-After, until the server
decides. Exit codes: 0 all was acknowledged; 1 ended early, such as by Ctrl-C (-resume goes on), by a server that turns
all requests away, or by one that answers none; 2 wrong usage; 3 some samples were refused, or given up after -attempts.`,
		Example: `duramenctl load
duramenctl load -series=100000 -from=-2h -ledger=run.ledger -pid=$(pidof duramen)
duramenctl load -tenants=4 -samples=10000000 -churn=0.3 -ledger=run.ledger
duramenctl load -resume -ledger=run.ledger
duramenctl load -from=now -to=+1h -series=50000            # live: each sample when its time has come`,
		Flags: s.registerFlags,
		Run: func(ctx context.Context, env cli.Env, args []string) error {
			if len(args) > 0 {
				return cli.Usagef("no arguments are taken")
			}
			return s.do(ctx, env, time.Now())
		},
	}
}

func (s *settings) do(ctx context.Context, env cli.Env, now time.Time) error {
	if err := s.server.Validate(); err != nil {
		return err
	}
	if err := s.send.Validate(); err != nil {
		return cli.Usagef("%w", err)
	}
	journal, ledger, cfg, err := s.open(now)
	if err != nil {
		return err
	}
	plan, err := loadplan.New(cfg)
	if err != nil {
		return errors.Join(err, journal.close())
	}
	fmt.Fprintln(env.Stdout, runflags.Describe(cfg))
	report, err := s.sendPlan(ctx, env, plan, journal, ledger)
	if err == nil && journal.Journal != nil {
		journal.Settle()
	}
	if closed := journal.close(); err == nil {
		err = closed
	}
	s.show(env, &report)
	switch {
	case errors.Is(err, context.Canceled) && s.ledger != "":
		return fmt.Errorf("ended early; go on with -resume -ledger=%s: %w", s.ledger, err)
	case err != nil:
		return err
	}
	if report.Requests > 0 && report.Statuses[0] > 0 && len(report.Statuses) == 1 {
		return fmt.Errorf("%s answered none of %d requests: is it there?", s.server.URL, report.Requests)
	}
	s.next(env, cfg)
	if report.Refused+report.Unknown > 0 {
		return cli.Wrong(fmt.Errorf("%d samples were refused and %d given up", report.Refused, report.Unknown))
	}
	return nil
}

// notes is a journal, or none.
type notes struct{ *loadledger.Journal }

func (n notes) close() error {
	if n.Journal == nil {
		return nil
	}
	return n.Close()
}

// open creates or resumes the ledger, if there is to be one, and returns the run.
func (s *settings) open(now time.Time) (j notes, l *loadledger.Ledger, cfg loadplan.Config, err error) {
	if s.resume {
		if s.ledger == "" {
			return j, nil, cfg, cli.Usagef("-resume needs -ledger, which knows the run")
		}
		if given := s.run.Given(); len(given) > 0 {
			return j, nil, cfg, cli.Usagef("%s: with -resume the ledger says which run it is", strings.Join(given, ", "))
		}
		j.Journal, l, err = loadledger.Resume(s.ledger)
		if err != nil {
			return j, nil, cfg, err
		}
		return j, l, l.Config(), nil
	}
	cfg, err = s.run.Config(s.server.Tenant, now)
	if err != nil || s.ledger == "" {
		return j, nil, cfg, err
	}
	j.Journal, err = loadledger.Create(s.ledger, cfg)
	if errors.Is(err, os.ErrExist) {
		err = cli.Usagef("%w: go on with it by -resume, or name another file", err)
	}
	return j, nil, cfg, err
}

// sendPlan sends all that is left of the run.
func (s *settings) sendPlan(
	ctx context.Context, env cli.Env, plan *loadplan.Plan, journal notes, ledger *loadledger.Ledger,
) (loadgen.Report, error) {
	transport, err := s.server.Transport(&http.Transport{
		MaxIdleConnsPerHost: s.send.Connections, Proxy: http.ProxyFromEnvironment,
	})
	if err != nil {
		return loadgen.Report{}, err
	}
	client := &http.Client{Timeout: s.timeout, Transport: transport}
	defer client.CloseIdleConnections()
	to := make([]loadgen.Pusher, len(plan.Tenants()))
	for i, tenant := range plan.Tenants() {
		to[i] = &remotewrite.Client{
			URL: s.server.URL + s.pushPath, Tenant: tenant, UserAgent: "duramenctl/" + buildinfo.Read().Version, HTTP: client,
		}
	}
	progress := cli.NewProgress(env, "send", plan.Samples(), "samples")
	defer progress.Done()
	progress.Add(settled(plan, ledger))
	trouble := trouble{env: env}
	options := loadgen.Options{
		Ledger: ledger, OnSamples: func(n int) { progress.Add(int64(n)) }, OnTrouble: trouble.say,
	}
	if journal.Journal != nil {
		options.Notes = journal
	}
	sender, err := loadgen.New(s.send, plan, to, options)
	if err != nil {
		return loadgen.Report{}, err
	}
	used, err := s.watch()
	if err != nil {
		return loadgen.Report{}, err
	}
	report, err := sender.Run(ctx)
	s.used, s.usedErr = used()
	return report, err
}

// watch begins to measure the process that -pid names, if any.
func (s *settings) watch() (func() (loadgen.Usage, error), error) {
	if s.pid == 0 {
		return func() (loadgen.Usage, error) { return loadgen.Usage{}, nil }, nil
	}
	used, err := loadgen.Watch(s.pid)
	if err != nil {
		return nil, cli.Usagef("-pid: %w", err)
	}
	return used, nil
}

// settled counts the samples that a run sent before.
func settled(plan *loadplan.Plan, ledger *loadledger.Ledger) int64 {
	if ledger == nil {
		return 0
	}
	samples := int64(0)
	for tenant := range plan.Tenants() {
		for chunk := range plan.Chunks() {
			for scrape := range ledger.Next(tenant, chunk) {
				from, to := plan.Span(chunk, scrape)
				samples += int64(to - from)
			}
		}
	}
	return samples
}

// trouble tells about answers that are no success, not more often than every few seconds.
type trouble struct {
	env  cli.Env
	mu   sync.Mutex
	last time.Time
	left int // untold since
}

const troubleEvery = 5 * time.Second

func (t *trouble) say(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.last) < troubleEvery {
		t.left++
		return
	}
	more := ""
	if t.left > 0 {
		more = fmt.Sprintf(" (and %d others)", t.left)
	}
	t.last, t.left = time.Now(), 0
	if t.env.Terminal {
		text = "\r" + text // over the line of progress
	}
	fmt.Fprintf(t.env.Stderr, "%s%s\n", text, more)
}

// show writes the report.
func (s *settings) show(env cli.Env, r *loadgen.Report) {
	if r.Requests == 0 {
		return
	}
	out := env.Stdout
	fmt.Fprintf(out, "samples    %d acknowledged, %d refused, %d unknown\n", r.Acknowledged, r.Refused, r.Unknown)
	fmt.Fprintf(out, "took       %s, %s samples a second\n", r.Took.Round(time.Millisecond), cli.Count(int64(r.PerSecond())))
	fmt.Fprintf(out, "requests   %d, %d repetitions; answers:", r.Requests, r.Retries)
	for _, status := range slices.Sorted(maps.Keys(r.Statuses)) {
		name := fmt.Sprint(status)
		if status == 0 {
			name = "none"
		}
		fmt.Fprintf(out, " %s × %d", name, r.Statuses[status])
	}
	ms := func(q float64) float64 { return float64(r.Latency.Quantile(q)) / 1e6 }
	fmt.Fprintf(out, "\nlatency    p50 %.1f ms, p90 %.1f ms, p99 %.1f ms, max %.1f ms\n", ms(0.5), ms(0.9), ms(0.99), ms(1))
	switch {
	case s.usedErr != nil:
		fmt.Fprintf(env.Stderr, "process %d was not measured: %v\n", s.pid, s.usedErr)
	case s.pid != 0:
		perSample := float64(s.used.CPU) / 1e3 / float64(max(1, r.Acknowledged))
		fmt.Fprintf(out, "process    CPU %s (%.2f µs a sample), resident %s, at most %s\n", s.used.CPU.Round(time.Millisecond),
			perSample, cli.Bytes(s.used.RSS), cli.Bytes(s.used.Peak))
	}
	if r.Refusal != "" {
		fmt.Fprintf(out, "refusal    %s\n", r.Refusal)
	}
}

// next says how to verify the run.
func (s *settings) next(env cli.Env, cfg loadplan.Config) {
	args := "-ledger=" + s.ledger
	if s.ledger == "" {
		args = s.run.Args(s.server.Tenant, cfg)
	}
	if s.server.URL != cli.DefaultURL {
		args = "-url=" + s.server.URL + " " + args
	}
	fmt.Fprintf(env.Stdout, "verify it with\n  duramenctl verify %s\n", args)
}
