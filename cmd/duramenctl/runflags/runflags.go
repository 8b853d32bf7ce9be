// Package runflags holds the flags that say which samples a run of load has, the same for the command that sends them and
// the one that verifies them. It turns them into a plan and back into a command line, and asks no server. Read package
// loadplan next for what a plan is.
package runflags

import (
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/duramendb/duramen/cmd/duramenctl/ask"
	"github.com/duramendb/duramen/internal/cli"
	"github.com/duramendb/duramen/internal/loadplan"
	"github.com/duramendb/duramen/internal/remotewrite"
	"github.com/duramendb/duramen/internal/seriesgen"
)

// Flags are the flags of a run.
type Flags struct {
	set        *flag.FlagSet
	seed       uint64
	tenants    int
	series     int
	from, to   string
	interval   time.Duration
	samples    int64
	histograms bool
	churn      float64
	perRequest int
	protocol   string
}

// names are the flags that a ledger answers in their stead.
func names() []string {
	return []string{
		"tenant", "tenants", "seed", "series", "from", "to", "interval", "samples", "histograms", "churn", "request", "protocol",
	}
}

// Register registers the flags.
func (r *Flags) Register(f *flag.FlagSet) {
	r.set = f
	f.Uint64Var(&r.seed, "seed", 1, "The seed of all names and values.")
	f.IntVar(&r.tenants, "tenants", 1, "How many tenants. With more than one they are called as -tenant says, or load, with -0, -1, … behind.")
	f.IntVar(&r.series, "series", 10_000, "How many series each tenant has at a time, in pods of "+strconv.Itoa(seriesgen.SeriesPerPod)+".")
	f.StringVar(&r.from, "from", "-10m", "The time of the first samples: -1h, now, 2026-07-30T12:00:00Z or seconds since 1970.")
	f.StringVar(&r.to, "to", "now", "The time after the last samples, as -from. Samples after now, such as up to +1h, are sent when their\n"+
		"time has come.")
	f.DurationVar(&r.interval, "interval", 15*time.Second, "The time between two samples of a series.")
	f.Int64Var(&r.samples, "samples", 0, "At least this many samples over all tenants, in place of -from: the run begins as early as that takes.")
	f.BoolVar(&r.histograms, "histograms", true, "Make 4 of the "+strconv.Itoa(seriesgen.SeriesPerPod)+
		" series of a pod native histograms: integer, float, and custom buckets of both.")
	f.Float64Var(&r.churn, "churn", 0, "The share of pods that new ones replace in an hour of the samples' time, such as 0.3.")
	f.IntVar(&r.perRequest, "request", 2000, "How many samples a request has.")
	f.StringVar(&r.protocol, "protocol", "both", "The version of remote write: 1, 2, or both by turns.")
}

// Given returns those of the flags that stand on the command line.
func (r *Flags) Given() []string {
	var given []string
	r.set.Visit(func(f *flag.Flag) {
		if slices.Contains(names(), f.Name) {
			given = append(given, "-"+f.Name)
		}
	})
	return given
}

// Config returns the run that the flags name. Tenant is the flag of that name, which commands share with others.
func (r *Flags) Config(tenant string, now time.Time) (loadplan.Config, error) {
	cfg := loadplan.Config{
		Seed: r.seed, Tenants: tenantNames(tenant, r.tenants), Series: r.series, Interval: r.interval, Histograms: r.histograms,
		Churn: r.churn, PerRequest: r.perRequest,
	}
	switch r.protocol {
	case "1":
		cfg.Protocols = []remotewrite.Version{remotewrite.V1}
	case "2":
		cfg.Protocols = []remotewrite.Version{remotewrite.V2}
	case "both":
		cfg.Protocols = []remotewrite.Version{remotewrite.V1, remotewrite.V2}
	default:
		return cfg, cli.Usagef("-protocol: %q is none of 1, 2 and both", r.protocol)
	}
	if err := r.times(&cfg, now); err != nil {
		return cfg, err
	}
	if err := cfg.Validate(); err != nil {
		return cfg, cli.Usagef("%w", err)
	}
	for _, id := range cfg.Tenants {
		if err := ask.ValidateTenant(id); err != nil {
			return cfg, err
		}
	}
	return cfg, nil
}

// times sets the start and the number of scrapes.
func (r *Flags) times(cfg *loadplan.Config, now time.Time) error {
	to, err := cli.Instant(r.to, now)
	if err != nil {
		return cli.Usagef("-to: %w", err)
	}
	if cfg.Interval <= 0 {
		return cli.Usagef("-interval: set a positive duration")
	}
	if r.samples != 0 {
		perScrape := int64(cfg.Series) * int64(len(cfg.Tenants))
		if slices.Contains(r.Given(), "-from") {
			return cli.Usagef("-from and -samples both say when to begin: give one of them")
		}
		if r.samples < 0 || perScrape <= 0 || (r.samples-1)/perScrape >= int64(1<<62)/int64(cfg.Interval) {
			return cli.Usagef("-samples: %d samples of %d series do not fit into time", r.samples, perScrape)
		}
		cfg.Scrapes = int((r.samples-1)/perScrape + 1)
		cfg.Start = to.Add(-time.Duration(cfg.Scrapes) * cfg.Interval).UnixMilli()
		return nil
	}
	from, err := cli.Instant(r.from, now)
	if err != nil {
		return cli.Usagef("-from: %w", err)
	}
	cfg.Start = from.UnixMilli()
	cfg.Scrapes = int((to.UnixMilli() - cfg.Start) / max(1, cfg.Interval.Milliseconds()))
	if cfg.Scrapes < 1 {
		return cli.Usagef("-from %s, -to %s: no sample every %s lies between them", r.from, r.to, r.interval)
	}
	return nil
}

func tenantNames(name string, n int) []string {
	if n == 1 {
		return []string{name}
	}
	if name == "" {
		name = "load"
	}
	var tenants []string
	for i := range n {
		tenants = append(tenants, fmt.Sprintf("%s-%d", name, i))
	}
	return tenants
}

// Args returns the flags that name the run whenever they are given, with absolute times.
func (r *Flags) Args(tenant string, cfg loadplan.Config) string {
	args := []string{
		fmt.Sprintf("-seed=%d", cfg.Seed), fmt.Sprintf("-series=%d", cfg.Series), "-from=" + at(cfg.Start),
		"-to=" + at(cfg.Start+int64(cfg.Scrapes)*cfg.Interval.Milliseconds()), "-interval=" + cfg.Interval.String(),
		fmt.Sprintf("-request=%d", cfg.PerRequest),
	}
	if tenant != "" {
		args = append(args, "-tenant="+tenant)
	}
	if r.tenants != 1 {
		args = append(args, fmt.Sprintf("-tenants=%d", r.tenants))
	}
	if !cfg.Histograms {
		args = append(args, "-histograms=false")
	}
	if cfg.Churn != 0 {
		args = append(args, "-churn="+strconv.FormatFloat(cfg.Churn, 'g', -1, 64))
	}
	return strings.Join(args, " ")
}

// at writes a time as flags take it, exact to the millisecond.
func at(ms int64) string { return model.Time(ms).Time().UTC().Format("2006-01-02T15:04:05.999Z07:00") }

// Describe returns the run in one line.
func Describe(cfg loadplan.Config) string {
	layout, err := loadplan.NewLayout(cfg)
	if err != nil {
		return err.Error()
	}
	end := cfg.Start + int64(cfg.Scrapes)*cfg.Interval.Milliseconds()
	return fmt.Sprintf("run %s: %d tenants × %d series × %d scrapes = %s samples, %s to %s every %s", cfg.Run(), len(cfg.Tenants),
		cfg.Series, cfg.Scrapes, cli.Count(layout.Samples()), at(cfg.Start), at(end), cfg.Interval)
}
