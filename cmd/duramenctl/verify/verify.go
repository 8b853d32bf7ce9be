// Package verify is the command that proves that what was stored is there: a run of load, read back from a server and compared
// sample by sample with what was sent, or all blocks of a tenant, read from the bucket. It changes nothing and believes no
// counter of the server. Read package loadverify next for how a run is compared, and cmd/duramenctl/blocks for how blocks are.
package verify

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/duramendb/duramen/cmd/duramenctl/blocks"
	"github.com/duramendb/duramen/cmd/duramenctl/runflags"
	"github.com/duramendb/duramen/internal/cli"
	"github.com/duramendb/duramen/internal/loadledger"
	"github.com/duramendb/duramen/internal/loadplan"
	"github.com/duramendb/duramen/internal/loadverify"
)

// settings are the flags.
type settings struct {
	server cli.Server
	prefix string
	run    runflags.Flags
	ledger string
	via    string
	read   loadverify.Config
	show   int
	blocks blocks.Verification
}

func (s *settings) registerFlags(f *flag.FlagSet) {
	s.server.RegisterFlags(f)
	s.run.Register(f)
	f.StringVar(&s.prefix, "prefix", "/prometheus", "What stands before /api/v1/ in the paths of the query API; a Prometheus has nothing there.")
	f.StringVar(&s.ledger, "ledger", "", "The file that load wrote. Without it give the flags that load was given, with absolute times: all "+
		"samples\ncount as acknowledged then.")
	f.StringVar(&s.via, "via", "both", "How to read: query (as PromQL sees it), remote-read (every bit), or both.")
	f.IntVar(&s.read.Connections, "connections", 2, "How many questions are under way at a time.")
	f.IntVar(&s.read.PerQuery, "samples-per-query", 200_000, "About how many samples are read at once. It bounds the memory of both sides.")
	f.DurationVar(&s.read.Margin, "margin", time.Hour, "How far before and after the run to look for samples that were never sent.")
	f.IntVar(&s.show, "show", 20, "How many differences to show; with TENANT, how many faults of each block.")
	s.blocks.Bucket.RegisterFlags(f)
	f.StringVar(&s.blocks.Format, "format", "table", "With TENANT: table or json.")
	f.BoolVar(&s.blocks.Shallow, "shallow", false, "With TENANT: compare manifest, meta.json and sizes only, without index and chunks.")
}

// Command returns the command.
func Command() cli.Command {
	var s settings
	return cli.Command{
		Name: "verify", Args: "[flags] [TENANT]", Summary: "prove that what was stored is there: all blocks of a tenant, or a run of load",
		Long: `With TENANT and a bucket all blocks of the tenant are read to the last byte, as by blocks check, and accounted for: whatever
lies in the bucket and is not listed has its samples in a block that is, or they were deleted on purpose. -shallow reads neither
index nor chunks.

Without TENANT a run of load is read back from a server. Every sample of the run is computed again and compared with what the
server returns. Acknowledged samples have to be there once, with the bits that were sent: values, NaN, stale markers, buckets of
native histograms. Samples that were refused, or of which no answer is known, may be there once with the value that was sent, or
not. Nothing else may bear the label of the run: no other sample, series or metric.

Exit codes: 0 all is right; 1 something could not be read; 2 wrong usage; 3 there are differences, or faults.`,
		Example: `duramenctl verify -bucket=./data/bucket team-a
duramenctl verify -bucket=./data/bucket -shallow -format=json team-a
duramenctl verify -ledger=run.ledger
duramenctl verify -ledger=run.ledger -via=remote-read -show=100
duramenctl verify -seed=1 -series=10000 -from=2026-07-30T11:50:00Z -to=2026-07-30T12:00:00Z`,
		Flags: s.registerFlags,
		Run: func(ctx context.Context, env cli.Env, args []string) error {
			switch {
			case len(args) > 1:
				return cli.Usagef("give one tenant, or none for a run of load")
			case len(args) == 1 && s.ledger != "":
				return cli.Usagef("a tenant's blocks and a run of load are two things to verify: give -ledger or a tenant")
			case len(args) == 1:
				s.blocks.Show = s.show
				return s.blocks.Run(ctx, env, args[0], time.Now())
			case s.blocks.Bucket.Given():
				return cli.Usagef("which tenant's blocks?")
			}
			return s.do(ctx, env, time.Now())
		},
	}
}

func (s *settings) do(ctx context.Context, env cli.Env, now time.Time) error {
	if err := s.server.Validate(); err != nil {
		return err
	}
	s.read.Ways = []string{s.via}
	if s.via == "both" {
		s.read.Ways = []string{loadverify.Query, loadverify.RemoteRead}
	}
	if err := s.read.Validate(); err != nil {
		return cli.Usagef("%w", err)
	}
	cfg, fates, err := s.open(env, now)
	if err != nil {
		return err
	}
	plan, err := loadplan.New(cfg)
	if err != nil {
		return err
	}
	fmt.Fprintln(env.Stdout, runflags.Describe(cfg))
	server := loadverify.NewServer(s.server.URL + s.prefix)
	if server.HTTP.Transport, err = s.server.Transport(loadverify.Transport()); err != nil {
		return err
	}
	defer server.Close()
	verifier, err := loadverify.New(s.read, plan, fates, server)
	if err != nil {
		return err
	}
	progress := cli.NewProgress(env, "verify", plan.Samples()*int64(len(s.read.Ways)), "samples")
	verifier.OnSamples = func(n int) { progress.Add(int64(n)) }
	report, err := verifier.Run(ctx)
	progress.Done()
	if shown := s.write(env, report); err == nil {
		err = shown
	}
	if err != nil {
		return fmt.Errorf("not everything could be verified: %w", err)
	}
	if !report.OK() {
		return cli.Wrong(verdict(report))
	}
	fmt.Fprintln(env.Stdout, "all is there, once and unchanged, and nothing else")
	return nil
}

// verdict says in one sentence what kind of differences a report has.
func verdict(r *loadverify.Report) error {
	lacks, all := int64(0), int64(0)
	for _, t := range r.Ways {
		lacks += t.Differences[loadverify.Missing] + t.Of(loadverify.Wrong, loadledger.Acknowledged)
		for _, n := range t.Differences {
			all += n
		}
	}
	switch lacks {
	case all:
		return errors.New("the server does not have what it must have")
	case 0:
		return errors.New("the server has what it must not have")
	default:
		return errors.New("the server does not have what it must have, and has what it must not have")
	}
}

// open returns the run and what is known of its samples.
func (s *settings) open(env cli.Env, now time.Time) (loadplan.Config, loadverify.Fates, error) {
	if s.ledger == "" {
		cfg, err := s.run.Config(s.server.Tenant, now)
		return cfg, loadverify.Acknowledged{}, err
	}
	if given := s.run.Given(); len(given) > 0 {
		return loadplan.Config{}, nil, cli.Usagef("%s: with -ledger the file says which run it is", strings.Join(given, ", "))
	}
	ledger, err := loadledger.Read(s.ledger)
	if err != nil {
		return loadplan.Config{}, nil, err
	}
	if !ledger.Closed() {
		fmt.Fprintln(env.Stderr, "the ledger was not closed: the load still runs, or was killed; its last requests count as unknown")
	}
	return ledger.Config(), ledger, nil
}

// write writes what was found.
func (s *settings) write(env cli.Env, r *loadverify.Report) error {
	table := cli.NewTable("read by", "samples that were", ">sent", ">found", ">missing", ">wrong", ">doubled", ">invented")
	hidden := int64(0)
	for _, way := range s.read.Ways {
		t := r.Ways[way]
		hidden += t.Hidden
		known := func(fates ...loadledger.Fate) (expected, found int64) {
			for _, f := range fates {
				expected, found = expected+t.Expected[f], found+t.Found[f]
			}
			return expected, found
		}
		expected, found := known(loadledger.Acknowledged)
		table.Row(way, "acknowledged", expected, found, t.Of(loadverify.Missing, loadledger.Acknowledged),
			t.Of(loadverify.Wrong, loadledger.Acknowledged), t.Of(loadverify.Doubled, loadledger.Acknowledged), "")
		expected, found = known(loadledger.Refused, loadledger.Unknown)
		table.Row("", "refused or unknown", expected, found, "", t.Of(loadverify.Wrong, loadledger.Refused, loadledger.Unknown),
			t.Of(loadverify.Doubled, loadledger.Refused, loadledger.Unknown), "")
		table.Row("", "never sent", "", "", "", "", t.Of(loadverify.Doubled, loadledger.NeverSent),
			t.Of(loadverify.Invented, loadledger.NeverSent))
	}
	if err := table.Write(env.Stdout); err != nil {
		return err
	}
	if hidden > 0 {
		fmt.Fprintf(env.Stdout, "%d acknowledged stale markers are not shown by queries\n", hidden)
	}
	for _, way := range s.read.Ways {
		if n := r.Ways[way].Differences[loadverify.Disorder]; n > 0 {
			fmt.Fprintf(env.Stdout, "%d series were answered out of order by %s\n", n, way)
		}
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(env.Stdout, "the server warns: %s\n", w)
	}
	for _, d := range r.First[:min(len(r.First), max(0, s.show))] {
		when := "as a whole"
		if d.T != 0 {
			when = fmt.Sprintf("at %s (%d)", time.UnixMilli(d.T).UTC().Format("2006-01-02T15:04:05.000Z07:00"), d.T)
		}
		fmt.Fprintf(env.Stdout, "%s, %s, by %s, tenant %q\n  series   %s\n  %s\n  expected %s\n  found    %s\n",
			d.Kind, d.Fate, d.Way, d.Tenant, d.Series, when, cmp.Or(d.Expected, "nothing"), cmp.Or(d.Found, "nothing"))
	}
	fmt.Fprintf(env.Stdout, "took %s\n", r.Took.Round(time.Millisecond))
	return nil
}
