package loadverify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/internal/loadledger"
	"github.com/duramendb/duramen/internal/loadplan"
	"github.com/duramendb/duramen/internal/seriesgen"
)

// The ways to read a run back.
const (
	// Query reads with range selectors. It shows values as PromQL sees them: no stale markers, all NaN alike.
	Query = "query"
	// RemoteRead reads every bit.
	RemoteRead = "remote-read"
)

// Config says how a run is verified.
type Config struct {
	// Ways are Query, RemoteRead or both.
	Ways []string
	// Connections is how many windows are read at a time.
	Connections int
	// PerQuery is about how many samples one window has; it bounds the memory of both sides.
	PerQuery int
	// Margin is how far before and after the run the server is searched for samples that were never sent.
	Margin time.Duration
}

// Validate checks the configuration.
func (c *Config) Validate() error {
	for _, way := range c.Ways {
		if way != Query && way != RemoteRead {
			return fmt.Errorf("way %q: there are %s and %s", way, Query, RemoteRead)
		}
	}
	switch {
	case len(c.Ways) == 0:
		return fmt.Errorf("no way to read: name %s, %s or both", Query, RemoteRead)
	case c.Connections < 1:
		return fmt.Errorf("%d connections: set at least 1", c.Connections)
	case c.PerQuery < 1:
		return fmt.Errorf("%d samples in a query: set a positive number such as 200000", c.PerQuery)
	case c.Margin < 0:
		return fmt.Errorf("margin %s: set a positive duration", c.Margin)
	}
	return nil
}

// Report is what was found.
type Report struct {
	// Ways holds a tally for each way.
	Ways map[string]*Tally
	// First are the first differences in the order of tenants, series and times, a few of each series.
	First []Difference
	// Warnings are what the server said beside its answers, each once.
	Warnings []string
	// Took is the time from the first question to the last answer.
	Took time.Duration
}

// OK reports whether the server has what it must have and nothing else.
func (r *Report) OK() bool {
	for _, t := range r.Ways {
		if !t.OK() {
			return false
		}
	}
	return true
}

// Verifier verifies one run.
type Verifier struct {
	cfg    Config
	plan   *loadplan.Plan
	fates  Fates
	server *Server
	// OnSamples, if set, is called with the number of samples of the run that were looked for, from all connections.
	OnSamples func(n int)

	mu     sync.Mutex
	report Report
}

// New checks cfg.
func New(cfg Config, plan *loadplan.Plan, fates Fates, server *Server) (*Verifier, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if plan.Config().Unnamed {
		return nil, errors.New("the run has no name, so that its series cannot be told from others")
	}
	return &Verifier{cfg: cfg, plan: plan, fates: fates, server: server, OnSamples: func(int) {}}, nil
}

// Run reads everything back. An error means that something could not be read; what the report says until then is right. It
// is called once.
func (v *Verifier) Run(ctx context.Context) (*Report, error) {
	begin := time.Now()
	v.report.Ways = map[string]*Tally{}
	for _, way := range v.cfg.Ways {
		v.report.Ways[way] = &Tally{}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(v.cfg.Connections)
	free := make(chan *readers, v.cfg.Connections)
	for range v.cfg.Connections {
		free <- &readers{querier{server: v.server}, remoteReader{server: v.server}}
	}
	do := func(work func(r *readers) error) {
		group.Go(func() error {
			r := <-free
			defer func() { free <- r }()
			return work(r)
		})
	}
	for tenant := range v.plan.Tenants() {
		do(func(r *readers) error { return v.listing(ctx, &r.query, tenant) })
		for w := range v.windows(tenant) {
			if ctx.Err() != nil {
				break
			}
			do(func(r *readers) error { return v.window(ctx, r, w) })
		}
	}
	err := group.Wait()
	v.report.Took = time.Since(begin)
	slices.SortStableFunc(v.report.First, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Series, b.Series), cmp.Compare(a.T, b.T))
	})
	return &v.report, err
}

// readers is what a goroutine reads with.
type readers struct {
	query  querier
	remote remoteReader
}

// windows yields windows that cover all pods of a tenant at all times from Margin before the run to Margin after it.
func (v *Verifier) windows(tenant int) func(yield func(window) bool) {
	cfg := v.plan.Config()
	perGroup := max(1, min(cfg.PerRequest/seriesgen.SeriesPerPod, v.cfg.PerQuery/seriesgen.SeriesPerPod))
	scrapes := max(1, v.cfg.PerQuery/(perGroup*seriesgen.SeriesPerPod))
	return func(yield func(window) bool) {
		for first := 0; first < v.plan.Pods(); first += perGroup {
			last := min(first+perGroup, v.plan.Pods())
			begin, _ := v.plan.Alive(first)
			_, end := v.plan.Alive(last - 1)
			for from := begin; ; from += scrapes {
				to := min(from+scrapes, end)
				w := window{
					tenant: tenant, firstPod: first, lastPod: last, from: from, to: to,
					mint: v.plan.Begin(from), maxt: v.plan.Begin(to) - 1,
				}
				if from == begin {
					w.mint = v.plan.Begin(0) - v.cfg.Margin.Milliseconds()
				}
				if to == end {
					w.maxt = v.plan.Begin(cfg.Scrapes) - 1 + v.cfg.Margin.Milliseconds()
				}
				if !yield(w) {
					return
				}
				if to == end {
					break
				}
			}
		}
	}
}

// window reads one window by every way.
func (v *Verifier) window(ctx context.Context, r *readers, w window) error {
	gen := v.plan.Generator(w.tenant)
	cfg := v.plan.Config()
	sel := selection{tenant: cfg.Tenants[w.tenant], run: cfg.Run(), mint: w.mint, maxt: w.maxt}
	for pod := w.firstPod; pod < w.lastPod; pod++ {
		sel.pods = append(sel.pods, gen.Pod(pod*seriesgen.SeriesPerPod))
	}
	for _, way := range v.cfg.Ways {
		read := r.query.read
		if way == RemoteRead {
			read = r.remote.read
		}
		var c *comparison
		var warnings []string
		err := persist(ctx, func() (err error) {
			c = newComparison(v.plan, v.fates, way, way == RemoteRead, w)
			warnings, err = read(ctx, sel, c.series)
			return err
		})
		if err != nil {
			return fmt.Errorf("read tenant %q, pods %d to %d, %d to %d: %w",
				sel.tenant, w.firstPod, w.lastPod-1, w.mint, w.maxt, err)
		}
		c.finish()
		v.add(way, &c.tally, c.kept, warnings)
		n := int64(0)
		for _, of := range c.tally.Expected {
			n += of
		}
		v.OnSamples(int(n))
	}
	if w.maxt >= v.plan.Begin(cfg.Scrapes) {
		gen.Forget(w.firstPod*seriesgen.SeriesPerPod, w.lastPod*seriesgen.SeriesPerPod)
	}
	return nil
}

// add adds to the report.
func (v *Verifier) add(way string, t *Tally, kept []Difference, warnings []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Ways[way].add(t)
	v.report.First = append(v.report.First, kept[:min(len(kept), max(0, maxKept-len(v.report.First)))]...)
	for _, w := range warnings {
		if !slices.Contains(v.report.Warnings, w) && len(v.report.Warnings) < maxKept {
			v.report.Warnings = append(v.report.Warnings, w)
		}
	}
}

// seriesPerList is how many series are listed at once, about: some 10 MB of JSON.
const seriesPerList = 20_000

// listing checks that the server lists no series of the run that the run does not have. Samples of series that it has are
// checked by the windows; here only names count.
func (v *Verifier) listing(ctx context.Context, q *querier, tenant int) error {
	cfg := v.plan.Config()
	name, run, margin := cfg.Tenants[tenant], cfg.Run(), v.cfg.Margin.Milliseconds()
	mint, maxt := v.plan.Begin(0)-margin, v.plan.Begin(cfg.Scrapes)-1+margin
	for _, part := range parts(v.plan.Pods()) {
		selector := fmt.Sprintf(`{%s=%q%s}`, loadplan.RunLabel, run, part)
		var c *comparison
		var warnings []string
		err := persist(ctx, func() (err error) {
			c = newComparison(v.plan, v.fates, "listing", true, window{tenant: tenant})
			warnings, err = q.list(ctx, name, selector, mint, maxt, c.listed)
			return err
		})
		if err != nil {
			return fmt.Errorf("list series %s of tenant %q: %w", selector, name, err)
		}
		v.add(v.cfg.Ways[0], &c.tally, c.kept, warnings)
	}
	return nil
}

// parts returns matchers that divide the series of a run by their metrics and the ends of their pods, so that no list
// becomes too long. Together they match everything.
func parts(pods int) []string {
	if pods*seriesgen.SeriesPerPod <= seriesPerList {
		return []string{""}
	}
	names := seriesgen.Names()
	for i, name := range names {
		names[i] = fmt.Sprintf(`,%s=%q`, labels.MetricName, name)
	}
	names = append(names, fmt.Sprintf(`,%s!~%q`, labels.MetricName, strings.Join(seriesgen.Names(), "|")))
	digits, n := 0, 1
	for ; n <= pods/seriesPerList; n *= 10 {
		digits++
	}
	if digits == 0 {
		return names
	}
	ends := []string{fmt.Sprintf(`,pod!~".*%s"`, strings.Repeat("[0-9]", digits))}
	for i := range n {
		ends = append(ends, fmt.Sprintf(`,pod=~".*%0*d"`, digits, i))
	}
	var all []string
	for _, name := range names {
		for _, end := range ends {
			all = append(all, name+end)
		}
	}
	return all
}

// listed takes a series that the server lists.
func (c *comparison) listed(lset labels.Labels) {
	c.tally.Series++
	if _, ok := c.plan.Generator(c.tenant).Find(lset); !ok {
		c.ofSeries = 0
		c.differ(Invented, lset.String, 0, loadledger.NeverSent, "", nil)
	}
}
