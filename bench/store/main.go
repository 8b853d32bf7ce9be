// Command store measures what queries of long-term storage cost: requests to the bucket, waves of round trips, bytes, time
// and CPU, over blocks that are made for it. It runs the reader of the product in process, over a bucket that counts and
// adds a latency, and Prometheus' own block reader over the same blocks on local disk; a figure is printed only for
// answers that are right. Read docs/benchmarks.md next for what the figures mean.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
)

// errMissed is returned when a figure that does not depend on the machine is worse than its bar.
var errMissed = errors.New("bars were missed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "store:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var d data
	f := flag.NewFlagSet("store", flag.ContinueOnError)
	f.IntVar(&d.days, "days", 30, "daily blocks")
	f.IntVar(&d.grid.Metrics, "metrics", 21, "metrics, at least 12")
	f.IntVar(&d.grid.Series, "series", 1000, "series of each metric")
	interval := f.Duration("interval", time.Minute, "time between two samples of a series")
	f.Uint64Var(&d.grid.Seed, "seed", 1, "seed of the values")
	latency := f.Duration("latency", 40*time.Millisecond, "added to each operation on the bucket in the cold queries")
	rounds := f.Int("rounds", 5, "how often each warm query runs on each side, in rotation; the median counts")
	dir := f.String("dir", "", "where the blocks lie; empty means a temporary directory")
	if err := f.Parse(args); err != nil {
		return err
	}
	if d.grid.Metrics < minMetrics {
		return fmt.Errorf("-metrics %d: at least %d", d.grid.Metrics, minMetrics)
	}
	d.grid.Interval, d.grid.Start = interval.Milliseconds(), start
	if *dir == "" {
		temp, err := os.MkdirTemp("", "duramen-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temp)
		*dir = temp
	}
	fmt.Printf("%d daily blocks, %d metrics × %d series every %s, %d CPUs, %s\n",
		d.days, d.grid.Metrics, d.grid.Series, *interval, runtime.NumCPU(), runtime.Version())
	bkt, err := d.write(*dir)
	if err != nil {
		return err
	}
	if free, err := freeBytes(*dir); err != nil || free < d.bytes+spareBytes {
		return errors.Join(err, fmt.Errorf("%s has %d MiB free: the disk cache, which leaves 5 GiB to others, would give way",
			*dir, free>>20))
	}
	fmt.Printf("\n### Cold and again, on a bucket that counts, %s an operation\n\n", *latency)
	cold, err := d.cold(ctx, bkt, filepath.Join(*dir, "cache"), *latency)
	if err != nil {
		return err
	}
	printCosts(cold)
	fmt.Println()
	printTimes(cold)
	fmt.Printf("\n### Warm, beside Prometheus' block reader over the same blocks on local disk\n\n")
	warm, err := d.warm(ctx, bkt, filepath.Join(*dir, "cache"), filepath.Join(*dir, "bucket", tenant), *rounds)
	if err != nil {
		return err
	}
	printWarm(warm)
	fmt.Printf("\n### The sidecar\n\n")
	if err := d.sidecar(ctx, bkt); err != nil {
		return err
	}
	if missed := misses(cold, d.days); len(missed) > 0 {
		for _, m := range missed {
			fmt.Println("missed:", m)
		}
		return errMissed
	}
	return nil
}

// spareBytes is what the volume of a disk cache needs free beside what it caches: 5 GiB, which the cache leaves to others,
// and some.
const spareBytes = 6 << 30

// freeBytes is what is free on the volume of dir.
func freeBytes(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// write makes the blocks as a filesystem bucket in dir.
func (d *data) write(dir string) (bucket.Bucket, error) {
	begin, cpu := time.Now(), cpuTime()
	written, err := d.grid.Write(filepath.Join(dir, "bucket", tenant), d.days)
	if err != nil {
		return nil, err
	}
	d.add(written)
	samples := d.days * d.grid.Samples()
	fmt.Printf("%d million samples, %d MiB of blocks made in %.1f s (%.1f CPU-s): %.1f million samples a second\n",
		samples/1e6, d.bytes>>20, time.Since(begin).Seconds(), (cpuTime() - cpu).Seconds(),
		float64(samples)/1e6/time.Since(begin).Seconds())
	return bucket.NewFilesystem(filepath.Join(dir, "bucket"))
}

// cpuTime is the user and system time of this process.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (d *data) add(written []*blockgen.Block) {
	for _, b := range written {
		d.blocks = append(d.blocks, b.Entry)
		d.bytes += b.Entry.SizeBytes
		d.sidecarBytes += b.Entry.SidecarBytes
	}
}
