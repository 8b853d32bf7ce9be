package loadverify

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/internal/loadledger"
	"github.com/duramendb/duramen/internal/loadplan"
	"github.com/duramendb/duramen/internal/seriesgen"
)

// Fates knows what became of each request of a run; loadledger.Ledger does.
type Fates interface {
	Fate(tenant, chunk, scrape int) loadledger.Fate
}

// Acknowledged is the fate of every request of a run of which no ledger was kept.
type Acknowledged struct{}

// Fate returns Acknowledged.
func (Acknowledged) Fate(int, int, int) loadledger.Fate { return loadledger.Acknowledged }

// Kind is what is wrong with a sample.
type Kind string

// The kinds of differences.
const (
	Missing  Kind = "missing"      // acknowledged, and not there
	Wrong    Kind = "wrong value"  // there with another value
	Doubled  Kind = "doubled"      // there more than once
	Invented Kind = "invented"     // there, and never sent
	Disorder Kind = "out of order" // there, behind a later one of its series
)

// Difference is one sample that is not as it has to be.
type Difference struct {
	Kind   Kind
	Way    string // how it was read
	Tenant string
	Series string
	// T is the time of the sample in milliseconds since the Unix epoch, 0 for a series as a whole.
	T int64
	// Fate is what is known of it.
	Fate loadledger.Fate
	// Expected and Found are what was sent and what was read, empty for nothing.
	Expected, Found string
}

// Tally counts samples.
type Tally struct {
	// Expected counts the samples of each fate that were looked for, Found those that were there as they were sent.
	Expected, Found [loadledger.Acknowledged + 1]int64
	// Hidden counts acknowledged stale markers, which queries do not show.
	Hidden int64
	// Differences counts what is not as it has to be.
	Differences map[Kind]int64
	// byFate counts the same by the fate of the samples as well.
	byFate map[difference]int64
	// Series counts the label sets that the server lists for the run.
	Series int64
}

type difference struct {
	kind Kind
	fate loadledger.Fate
}

// Of returns the differences of a kind among the samples of some fates.
func (t *Tally) Of(kind Kind, fates ...loadledger.Fate) int64 {
	n := int64(0)
	for _, f := range fates {
		n += t.byFate[difference{kind, f}]
	}
	return n
}

// OK reports whether there are no differences.
func (t *Tally) OK() bool { return len(t.Differences) == 0 }

func (t *Tally) add(o *Tally) {
	for f := range o.Expected {
		t.Expected[f] += o.Expected[f]
		t.Found[f] += o.Found[f]
	}
	t.Hidden += o.Hidden
	t.Series += o.Series
	for d, n := range o.byFate {
		t.count(d, n)
	}
}

func (t *Tally) count(d difference, n int64) {
	if t.Differences == nil {
		t.Differences, t.byFate = map[Kind]int64{}, map[difference]int64{}
	}
	t.Differences[d.kind] += n
	t.byFate[d] += n
}

// window is a part of a tenant's run: the scrapes [from, to) of the pods [firstPod, lastPod), and the times that are read
// for it, both inclusive, in milliseconds.
type window struct {
	tenant            int
	firstPod, lastPod int
	from, to          int
	mint, maxt        int64
}

// maxKept is how many differences of a window are kept with their values, maxOfSeries how many of one series.
const (
	maxKept     = 100
	maxOfSeries = 3
)

// comparison holds an answer about a window against what was sent. It belongs to one goroutine.
type comparison struct {
	plan  *loadplan.Plan
	fates Fates
	way   string
	exact bool // whether the answer shows bits, or what the query API makes of them
	window

	tally    Tally
	kept     []Difference
	ofSeries int    // kept of the present series
	seen     []bool // by series of the window
}

func newComparison(plan *loadplan.Plan, fates Fates, way string, exact bool, w window) *comparison {
	return &comparison{
		plan: plan, fates: fates, way: way, exact: exact, window: w,
		seen: make([]bool, (w.lastPod-w.firstPod)*seriesgen.SeriesPerPod),
	}
}

// series takes one series of the answer.
func (c *comparison) series(lset labels.Labels, got []sample) {
	c.ofSeries = 0
	series, ok := c.plan.Generator(c.tenant).Find(lset)
	at := series - c.firstPod*seriesgen.SeriesPerPod
	if !ok || at < 0 || at >= len(c.seen) {
		for i := range got {
			c.differ(Invented, lset.String, got[i].t, loadledger.NeverSent, "", &got[i])
		}
		if len(got) == 0 {
			c.differ(Invented, lset.String, 0, loadledger.NeverSent, "", nil)
		}
		return
	}
	if c.seen[at] {
		for i := range got {
			c.differ(Doubled, lset.String, got[i].t, c.fateAt(series, got[i].t), "", &got[i])
		}
		return
	}
	c.seen[at] = true
	c.samples(series, got)
}

// finish takes note of the series that the answer lacks.
func (c *comparison) finish() {
	for at, seen := range c.seen {
		if !seen {
			c.ofSeries = 0
			c.samples(c.firstPod*seriesgen.SeriesPerPod+at, nil)
		}
	}
}

// samples compares the samples of one series with what was sent.
func (c *comparison) samples(series int, got []sample) {
	gen := c.plan.Generator(c.tenant)
	pod := series / seriesgen.SeriesPerPod
	name := func() string { return gen.Labels(series).String() }
	if !slices.IsSortedFunc(got, func(a, b sample) int { return int(a.t - b.t) }) {
		c.differ(Disorder, name, got[0].t, loadledger.Acknowledged, "", nil)
		got = slices.Clone(got)
		slices.SortStableFunc(got, func(a, b sample) int { return int(a.t - b.t) })
	}
	from, to := c.plan.Alive(pod)
	for scrape := max(from, c.from); scrape < min(to, c.to); scrape++ {
		want := gen.Expected(series, scrape)
		fate := c.fates.Fate(c.tenant, c.plan.Chunk(pod), scrape)
		c.tally.Expected[fate]++
		for len(got) > 0 && got[0].t < want.T {
			c.differ(Invented, name, got[0].t, loadledger.NeverSent, "", &got[0])
			got = got[1:]
		}
		if len(got) == 0 || got[0].t > want.T {
			c.absent(name, want, fate)
			continue
		}
		c.present(name, want, fate, &got[0])
		for got = got[1:]; len(got) > 0 && got[0].t == want.T; got = got[1:] {
			c.differ(Doubled, name, want.T, fate, wanted(want), &got[0])
		}
	}
	for i := range got {
		c.differ(Invented, name, got[i].t, loadledger.NeverSent, "", &got[i])
	}
}

func (c *comparison) absent(name func() string, want seriesgen.Sample, fate loadledger.Fate) {
	switch {
	case fate != loadledger.Acknowledged:
	case want.Stale() && !c.exact:
		c.tally.Hidden++
	default:
		c.differ(Missing, name, want.T, fate, wanted(want), nil)
	}
}

func (c *comparison) present(name func() string, want seriesgen.Sample, fate loadledger.Fate, got *sample) {
	same := sameShown
	if c.exact {
		same = sameBits
	}
	switch {
	case fate == loadledger.NeverSent:
		c.differ(Invented, name, want.T, fate, "", got)
	case !same(want, got):
		c.differ(Wrong, name, want.T, fate, wanted(want), got)
	default:
		c.tally.Found[fate]++
	}
}

// fateAt returns the fate of the sample of a series at a time.
func (c *comparison) fateAt(series int, t int64) loadledger.Fate {
	gen := c.plan.Generator(c.tenant)
	scrape := int((t - c.plan.Begin(0)) / c.plan.Config().Interval.Milliseconds())
	if t < c.plan.Begin(0) || scrape >= c.plan.Config().Scrapes || gen.Time(series, scrape) != t {
		return loadledger.NeverSent
	}
	return c.fates.Fate(c.tenant, c.plan.Chunk(series/seriesgen.SeriesPerPod), scrape)
}

// differ counts a difference and keeps it if there is room.
func (c *comparison) differ(kind Kind, series func() string, t int64, fate loadledger.Fate, expected string, found *sample) {
	c.tally.count(difference{kind, fate}, 1)
	if len(c.kept) >= maxKept || c.ofSeries >= maxOfSeries {
		return
	}
	c.ofSeries++
	d := Difference{
		Kind: kind, Way: c.way, Tenant: c.plan.Tenants()[c.tenant], Series: series(), T: t, Fate: fate, Expected: expected,
	}
	if found != nil {
		d.Found = found.String()
	}
	c.kept = append(c.kept, d)
}

// String returns the difference in one line.
func (d Difference) String() string {
	show := func(s string) string {
		if s == "" {
			return "nothing"
		}
		return s
	}
	return fmt.Sprintf("%s (%s, by %s): tenant %q, %s at %d: expected %s, found %s",
		d.Kind, d.Fate, d.Way, d.Tenant, d.Series, d.T, show(d.Expected), show(d.Found))
}
