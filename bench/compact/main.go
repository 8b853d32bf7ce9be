// Command compact measures what it costs to merge the blocks of a day: CPU, memory and local disk, beside Prometheus' own
// compactor over the same blocks. Each side runs in a process of its own; what both have written is compared sample by
// sample before a figure is printed. Read docs/benchmarks.md next for what the figures mean.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
)

// errMissed is returned when a figure is worse than its bar.
var errMissed = errors.New("bars were missed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if side := os.Getenv(sideVariable); side != "" {
		err = work(ctx, side)
	} else {
		err = run(ctx, os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compact:", err)
		os.Exit(1)
	}
}

// The bars.
const (
	minCopied = 0.95
	maxMemory = 614 << 20 // 0.6 GiB
	maxDisk   = 2.2       // times the index
	maxCPU    = 0.5       // of Prometheus'
)

func run(ctx context.Context, args []string) error {
	var d data
	f := flag.NewFlagSet("compact", flag.ContinueOnError)
	f.IntVar(&d.slots, "slots", 12, "slots of two hours")
	f.IntVar(&d.replicas, "replicas", 3, "blocks of each slot")
	f.IntVar(&d.series, "series", 50_000, "series")
	f.Uint64Var(&d.seed, "seed", 1, "seed of the values")
	f.Float64Var(&d.perturbed, "perturbed", 0.02, "share of the chunks of which one replica misses a sample")
	rounds := f.Int("rounds", 3, "how often each side runs, in turn; the median of CPU counts")
	cpu := f.Bool("assert-cpu", true, "a CPU bar that is missed is an error")
	alone := f.Bool("alone", false, "merge once, without Prometheus and without bars, and print memory and disk for each million series")
	dir := f.String("dir", "", "where the blocks lie; empty means a temporary directory")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *dir == "" {
		temp, err := os.MkdirTemp("", "duramen-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temp)
		*dir = temp
	}
	fmt.Printf("%d slots × %d replicas × %d series every minute, %d CPUs, %s\n",
		d.slots, d.replicas, d.series, runtime.NumCPU(), runtime.Version())
	size, err := d.write(*dir)
	if err != nil {
		return err
	}
	fmt.Printf("%d blocks, %d MiB\n\n", d.slots*d.replicas, size>>20)
	if *alone {
		got, err := measure(ctx, ours, *dir)
		if err != nil {
			return err
		}
		perMillion(got, d.series)
		return nil
	}
	sides := map[string][]figures{}
	for range *rounds {
		for _, side := range []string{ours, theirs} {
			if err := remove(*dir, side, sides[side]); err != nil {
				return err
			}
			got, err := measure(ctx, side, *dir)
			if err != nil {
				return fmt.Errorf("%s: %w", side, err)
			}
			sides[side] = append(sides[side], got)
		}
	}
	samples, err := compare(*dir, last(sides[ours]).Block, last(sides[theirs]).Block)
	if err != nil {
		return fmt.Errorf("compare the outputs: %w", err)
	}
	fmt.Printf("equal: %d samples\n\n", samples)
	return report(median(sides[ours]), median(sides[theirs]), *cpu)
}

func last(runs []figures) figures { return runs[len(runs)-1] }

// median returns the run whose CPU is in the middle, with the highest memory and disk of all.
func median(runs []figures) figures {
	sorted := slices.SortedFunc(slices.Values(runs), func(a, b figures) int { return int(a.cpu - b.cpu) })
	m := sorted[len(sorted)/2]
	for _, r := range runs {
		m.Memory, m.disk = max(m.Memory, r.Memory), max(m.disk, r.disk)
	}
	return m
}

// perMillion prints what grows with the number of series.
func perMillion(f figures, series int) {
	const mib = 1 << 20
	scale := 1e6 / float64(series) / mib
	fmt.Printf("| | all | per million series |\n|---|---|---|\n")
	fmt.Printf("| CPU | %.1f s | %.1f s |\n", f.cpu.Seconds(), f.cpu.Seconds()*1e6/float64(series))
	for _, each := range []struct {
		name  string
		bytes int64
	}{{"peak memory", f.Memory}, {"peak disk, besides the inputs", f.disk}, {"index", f.Index}} {
		fmt.Printf("| %s | %d MiB | %.0f MiB |\n", each.name, each.bytes/mib, float64(each.bytes)*scale)
	}
}

func report(o, p figures, assertCPU bool) error {
	copied := float64(o.Copied) / float64(max(1, o.Copied+o.Encoded))
	disk := float64(o.disk) / float64(max(1, o.Index))
	cpu := o.cpu.Seconds() / p.cpu.Seconds()
	fmt.Printf("| | Duramen | Prometheus |\n|---|---|---|\n")
	fmt.Printf("| CPU | %.2f s | %.2f s |\n", o.cpu.Seconds(), p.cpu.Seconds())
	fmt.Printf("| wall | %.2f s | %.2f s |\n", o.wall.Seconds(), p.wall.Seconds())
	fmt.Printf("| peak memory | %d MiB | %d MiB |\n", o.Memory>>20, p.Memory>>20)
	fmt.Printf("| peak disk, besides the inputs | %.1f MiB | %.1f MiB |\n", float64(o.disk)/(1<<20), float64(p.disk)/(1<<20))
	fmt.Printf("| index | %.1f MiB | %.1f MiB |\n\n", float64(o.Index)/(1<<20), float64(p.Index)/(1<<20))
	fmt.Printf("chunks copied: %.2f %%; disk: %.2f × index; CPU: %.2f × Prometheus'\n", 100*copied, disk, cpu)
	var missed []string
	check := func(ok bool, what string) {
		if !ok {
			missed = append(missed, what)
		}
	}
	check(copied >= minCopied, "chunks copied")
	check(disk <= maxDisk, "disk")
	check(o.Memory <= maxMemory, "memory")
	check(cpu <= maxCPU || !assertCPU, "CPU")
	for _, m := range missed {
		fmt.Println("missed:", m)
	}
	if len(missed) > 0 {
		return errMissed
	}
	return nil
}
