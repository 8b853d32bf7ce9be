// Package query is the command that asks PromQL of a server, for one instant or over a range, and shows the answer as a
// table, as JSON, as CSV or as a plot in the terminal. It computes nothing itself: values, warnings and errors are the
// server's. Read package querier next, which answers.
package query

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/duramendb/duramen/cmd/duramenctl/ask"
	"github.com/duramendb/duramen/internal/cli"
)

const apiPath = "/prometheus/api/v1"

// settings are the flags.
type settings struct {
	server               cli.Server
	at, start, end, step string
	format               string
	width, height        int
	timeout              time.Duration
	failEmpty            bool
}

func (s *settings) registerFlags(f *flag.FlagSet) {
	s.server.RegisterFlags(f)
	f.StringVar(&s.at, "time", "now", "The instant to ask for: now, -1h, 2026-07-30T12:00:00Z or seconds since 1970.")
	f.StringVar(&s.start, "start", "", "The start of a range, as -time. With it, or with -end or -step, the query is one over a range.\n"+
		"The default of a range is an hour before its end.")
	f.StringVar(&s.end, "end", "", "The end of a range. The default is now.")
	f.StringVar(&s.step, "step", "", "The step of a range, such as 30s. The default gives 60 points, or one for each column "+
		"of a plot.")
	f.StringVar(&s.format, "format", "table", "table, json (the server's answer as it came), csv or plot.")
	f.IntVar(&s.width, "width", 0, "The columns of a plot. 0 is the width of the terminal.")
	f.IntVar(&s.height, "height", defaultHeight, "The rows of a plot.")
	f.DurationVar(&s.timeout, "timeout", 2*time.Minute, "How long the query may take.")
	f.BoolVar(&s.failEmpty, "fail-empty", false, "Exit with 3 when the answer has no series.")
}

// Command returns the command.
func Command() cli.Command {
	var s settings
	return cli.Command{
		Name: "query", Args: "[flags] EXPRESSION", Summary: "ask PromQL and show the answer as a table, JSON, CSV or a plot",
		Long: `Exit codes: 0 answered; 1 not answered (the server's error type and text are shown); 2 wrong usage;
3 answered with no series, with -fail-empty. Warnings and infos of the answer go to standard error.`,
		Example: `duramenctl query 'up'
duramenctl query -start=-6h -format=plot 'sum(rate(http_requests_total[5m]))'
duramenctl query -tenant=team-a -start=-1d -end=now -step=5m -format=csv 'up' > up.csv
duramenctl query -fail-empty 'absent(up{job="duramen"}) or vector(1)'
duramenctl query -- '-up'`,
		Flags: s.registerFlags,
		Run: func(ctx context.Context, env cli.Env, args []string) error {
			return run(ctx, env, s, args, time.Now())
		},
	}
}

func run(ctx context.Context, env cli.Env, s settings, args []string, now time.Time) error {
	if len(args) != 1 {
		return cli.Usagef("give one expression, quoted, not %d arguments", len(args))
	}
	show, ok := formats()[s.format]
	if !ok {
		return cli.Usagef("-format: %q is none of table, json, csv and plot", s.format)
	}
	if s.width == 0 {
		s.width = env.Width()
	}
	if s.width < minWidth || s.height < minHeight || s.width > maxSide || s.height > maxSide {
		return cli.Usagef("-width is %d to %d and -height %d to %d", minWidth, maxSide, minHeight, maxSide)
	}
	if err := s.server.Validate(); err != nil {
		return err
	}
	if err := ask.ValidateTenant(s.server.Tenant); err != nil {
		return err
	}
	path, form, span, err := s.request(args[0], now)
	if err != nil {
		return err
	}
	// A little more than the server's own limit, so that it is the server that says so.
	ctx, cancel := context.WithTimeout(ctx, s.timeout+5*time.Second)
	defer cancel()
	client, err := ask.New(s.server)
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.PostForm(ctx, path, form)
	if err != nil {
		return err
	}
	r, err := decode(answer)
	tell(env, r)
	if err != nil {
		return err
	}
	if err := show(env, s, r, span); err != nil {
		return err
	}
	if s.failEmpty && r.empty() {
		return cli.Wrong(fmt.Errorf("the answer has no series"))
	}
	return nil
}

// tell writes what the server said beside the answer.
func tell(env cli.Env, r result) {
	for _, w := range r.warnings {
		fmt.Fprintf(env.Stderr, "warning: %s\n", w)
	}
	for _, i := range r.infos {
		fmt.Fprintf(env.Stderr, "info: %s\n", i)
	}
}

// span is the range that was asked for. The zero value is an instant.
type span struct {
	start, end time.Time
	step       time.Duration
}

// request returns what to ask: of query, or of query_range when a flag of ranges is given.
func (s *settings) request(expr string, now time.Time) (path string, form url.Values, r span, err error) {
	form = url.Values{"query": {expr}, "timeout": {s.timeout.String()}}
	if s.timeout <= 0 {
		return "", nil, r, cli.Usagef("-timeout: %s is not above zero", s.timeout)
	}
	if s.start == "" && s.end == "" && s.step == "" {
		at, err := cli.Instant(s.at, now)
		if err != nil {
			return "", nil, r, cli.Usagef("-time: %w", err)
		}
		form.Set("time", seconds(at))
		return apiPath + "/query", form, r, nil
	}
	if s.at != "now" {
		return "", nil, r, cli.Usagef("-time asks for an instant, -start, -end and -step for a range: give one of them")
	}
	if r, err = s.span(now); err != nil {
		return "", nil, r, err
	}
	form.Set("start", seconds(r.start))
	form.Set("end", seconds(r.end))
	form.Set("step", fmt.Sprintf("%.3f", r.step.Seconds()))
	return apiPath + "/query_range", form, r, nil
}

// span reads the flags of a range and fills in what is not given.
func (s *settings) span(now time.Time) (r span, err error) {
	r.end = now
	if s.end != "" {
		if r.end, err = cli.Instant(s.end, now); err != nil {
			return r, cli.Usagef("-end: %w", err)
		}
	}
	r.start = r.end.Add(-time.Hour)
	if s.start != "" {
		if r.start, err = cli.Instant(s.start, now); err != nil {
			return r, cli.Usagef("-start: %w", err)
		}
	}
	if r.end.Before(r.start) {
		return r, cli.Usagef("-end (%s) is before -start (%s)", stamp(r.end), stamp(r.start))
	}
	if s.step != "" {
		if r.step, err = step(s.step); err != nil {
			return r, cli.Usagef("-step: %w", err)
		}
		return r, nil
	}
	points := defaultPoints
	if s.format == "plot" {
		points = s.width
	}
	r.step = defaultStep(r.end.Sub(r.start), points)
	return r, nil
}

// defaultPoints is how many points a range has in a table: what fits a page.
const defaultPoints = 60

// formats is the table of what -format takes.
func formats() map[string]func(cli.Env, settings, result, span) error {
	return map[string]func(cli.Env, settings, result, span) error{
		"table": func(env cli.Env, _ settings, r result, _ span) error { return writeTable(env.Stdout, r.value) },
		"csv":   func(env cli.Env, _ settings, r result, _ span) error { return writeCSV(env.Stdout, r.value) },
		"plot": func(env cli.Env, s settings, r result, asked span) error {
			return writePlot(env, r.value, asked, s.width, s.height)
		},
		"json": func(env cli.Env, _ settings, r result, _ span) error {
			_, err := fmt.Fprintln(env.Stdout, strings.TrimSuffix(string(r.raw), "\n"))
			return err
		},
	}
}
