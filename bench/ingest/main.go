// Command ingest measures what taking in samples costs a whole server process: CPU for each 1,000 samples, latency, memory,
// time to be ready. It runs Duramen and, in turn on the same machine, any peers that are asked for, with the same load; a
// figure is printed only for a server that returns what it was sent. Read docs/benchmarks.md next for what the figures
// mean.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/duramendb/duramen/e2e/client"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ingest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var l load
	f := flag.NewFlagSet("ingest", flag.ContinueOnError)
	servers := f.String("servers", "duramen,prometheus",
		"what to measure, in this order: "+strings.Join(serverNames(), ", ")+"; what is not installed is left out")
	rounds := f.Int("rounds", 1, "how often, in rotation")
	versions := f.String("versions", "1,2", "versions of remote write")
	f.IntVar(&l.series, "series", 100_000, "active series")
	f.IntVar(&l.scrapes, "scrapes", 40, "samples of each series")
	f.IntVar(&l.perRequest, "request", 2000, "samples in a request")
	f.IntVar(&l.connections, "connections", 4, "requests at the same time")
	f.DurationVar(&l.interval, "interval", 15*time.Second, "time between two samples of a series; the last is now")
	f.Uint64Var(&l.seed, "seed", 1, "seed of the series")
	if err := f.Parse(args); err != nil {
		return err
	}
	if l.connections < 1 || l.perRequest < 1 || l.series < l.perRequest {
		return fmt.Errorf("-connections %d, -request %d, -series %d: at least one request for each", l.connections, l.perRequest, l.series)
	}
	var candidates []candidate
	for name := range strings.SplitSeq(*servers, ",") {
		s, missing, err := find(ctx, name)
		if err != nil {
			return err
		}
		candidates = append(candidates, candidate{name, s, missing})
	}
	fmt.Printf("%d series × %d samples every %s, %d a request, %d connections, %d CPUs, %s\n\n",
		l.series, l.scrapes, l.interval, l.perRequest, l.connections, runtime.NumCPU(), runtime.Version())
	fmt.Println(header)
	for range *rounds {
		for version := range strings.SplitSeq(*versions, ",") {
			v := client.V1
			if version == "2" {
				v = client.V2
			}
			for _, c := range candidates {
				if err := measure(ctx, c, v, l); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// candidate is a server to measure; missing says why it cannot be.
type candidate struct {
	name    string
	server  server
	missing string
}

// measure prints one line of the table.
func measure(ctx context.Context, cand candidate, v client.Version, l load) error {
	if cand.missing != "" {
		fmt.Printf("| %s | %d.0 | left out: %s |\n", cand.name, v, cand.missing)
		return nil
	}
	dir, err := os.MkdirTemp("", "duramen-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r, err := l.run(ctx, cand.server, dir, v)
	if err != nil {
		return fmt.Errorf("%s, remote write %d.0: %w", cand.name, v, err)
	}
	fmt.Println(r.row(cand.name, v))
	return nil
}
