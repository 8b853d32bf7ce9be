// Command cluster measures what three copies cost: the CPU time of all processes of a cluster for each 1,000 samples, and the
// bytes that go over the wire for each sample and replica. A node alone and a Prometheus get the same load in turn, for what
// a machine takes differs from hour to hour, and the ratios far less; a figure is printed only for what returns all that it
// was sent. Read docs/benchmarks.md next for what the figures mean.
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

	"github.com/duramendb/duramen/e2e/process"
)

// The bars. Of the same load Cortex takes 12,000 µs and 31.5 bytes on such a machine.
const (
	barMicros = 4000
	barBytes  = 25
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// ratio says how many times of another figure of the same round one is; nothing when there is no other.
func ratio(micros, of float64) string {
	if of == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", micros/of)
}

func run(ctx context.Context, args []string) error {
	var l load
	f := flag.NewFlagSet("cluster", flag.ContinueOnError)
	names := f.String("shapes", "prometheus,one,separate,all", "what to measure, in this order: "+strings.Join(shapeNames(), ", "))
	rounds := f.Int("rounds", 1, "how often, in rotation")
	f.IntVar(&l.series, "series", 100_000, "active series")
	f.IntVar(&l.scrapes, "scrapes", 40, "samples of each series")
	f.IntVar(&l.perRequest, "request", 2000, "samples in a request")
	f.IntVar(&l.connections, "connections", 4, "requests at the same time")
	f.DurationVar(&l.interval, "interval", 15*time.Second, "time between two samples of a series; the last is now")
	f.Uint64Var(&l.seed, "seed", 1, "seed of the series")
	f.BoolVar(&l.profile, "profile", false, "write a CPU profile of each process to the working directory")
	if err := f.Parse(args); err != nil {
		return err
	}
	binary, err := process.Build(ctx, false)
	if err != nil {
		return err
	}
	fmt.Printf("%d series × %d samples every %s, %d a request, %d connections, %d CPUs, %s\n\n%s\n",
		l.series, l.scrapes, l.interval, l.perRequest, l.connections, runtime.NumCPU(), runtime.Version(), header)
	var missed strings.Builder
	for range *rounds {
		micros := map[string]float64{}
		for name := range strings.SplitSeq(*names, ",") {
			s, ok := shapes[name]
			if !ok {
				return fmt.Errorf("shape %q is unknown; one of %v", name, shapeNames())
			}
			measure := l.measure
			if name == "prometheus" {
				measure = l.measurePrometheus
			}
			r, err := measure(ctx, binary, s)
			if err != nil {
				return fmt.Errorf("%s: %w", s.title, err)
			}
			micros[name] = r.micros()
			fmt.Println(r.row(s, ratio(r.micros(), micros["one"]), ratio(r.micros(), micros["prometheus"])))
			if s.copies > 1 && (r.micros() > barMicros || r.perReplica(s) > barBytes) {
				fmt.Fprintf(&missed, "%s misses: %.0f µs, %.2f bytes\n", s.title, r.micros(), r.perReplica(s))
			}
		}
	}
	fmt.Printf("\nbars: %d CPU-µs for 1,000 samples of all processes, %d bytes for a sample and replica\n%s", barMicros, barBytes, missed.String())
	return nil
}
