package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/countbucket"
)

// memory is what the budgets are shares of in the benchmark.
const memory = 4 << 30

// cost is what one query cost.
type cost struct {
	name string
	// known is set when directories were in memory, one when one series was asked for, again when it had been asked before.
	known, one, again bool
	// slow is set when each operation had the latency: without, operations that are meant to run together may end before
	// others begin, and waves mean nothing.
	slow bool

	gets, peak    int
	waves         int // of the block with most
	perBlock      int // GETs of the block with most
	bytes, needed int64
	most          int64 // bytes of the block with most
	took, cpu     time.Duration
}

// step is one query of the cold part.
type step struct {
	name           string
	metric, series int // series -1 is all of the metric
	// fresh begins with no caches, restart with what is on disk only.
	fresh, restart bool
	known, again   bool
	slow           bool // with the latency
}

// noLatency ends the name of a step that is another one without the latency.
const noLatency = ", no latency"

// steps ask each metric once at most, unless they ask again.
func steps() []step {
	return []step{
		{name: "all series of a metric, nothing known", metric: 0, series: -1, fresh: true, slow: true},
		{name: "all series of a metric, directories known", metric: 1, series: -1, known: true, slow: true},
		{name: "the same again", metric: 1, series: -1, known: true, again: true, slow: true},
		{name: "one series of a metric, directories known", metric: 2, series: 17, known: true, slow: true},
		{name: "the same again", metric: 2, series: 17, known: true, again: true, slow: true},
		{name: "another series of that metric", metric: 2, series: 23, known: true, slow: true},
		{name: "one series of a counter, directories known", metric: 3, series: 17, known: true, slow: true},
		{name: "all series of a counter, directories known", metric: 6, series: -1, known: true, slow: true},
		{name: "the first query again after a restart", metric: 0, series: -1, known: true, again: true, restart: true, slow: true},
		{name: "one series of a metric, nothing known", metric: 4, series: 17, fresh: true, slow: true},
		{name: "all series of a metric, nothing known" + noLatency, metric: 0, series: -1, fresh: true},
		{name: "all series of a metric, directories known" + noLatency, metric: 1, series: -1, known: true},
		{name: "all series of a counter, directories known" + noLatency, metric: 6, series: -1, known: true},
	}
}

// cold runs the steps one after the other and returns what each cost. Answers are checked against the formula.
func (d *data) cold(ctx context.Context, bkt bucket.Bucket, cacheDir string, latency time.Duration) ([]cost, error) {
	counting := countbucket.New(bkt)
	var s *store
	defer func() {
		if s != nil {
			_ = s.close()
		}
	}()
	var out []cost
	for _, st := range steps() {
		if st.fresh || st.restart {
			if s != nil {
				if err := s.close(); err != nil {
					return nil, err
				}
			}
			if st.fresh {
				if err := os.RemoveAll(cacheDir); err != nil {
					return nil, err
				}
			}
			var err error
			if s, err = newStore(counting, cacheDir, memory, d.bytes+1<<30); err != nil {
				return nil, err
			}
		}
		counting.SetLatency(0)
		if st.slow {
			counting.SetLatency(latency)
		}
		c, err := d.one(ctx, s, counting, st)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", st.name, err)
		}
		out = append(out, c)
	}
	return out, nil
}

func (d *data) one(ctx context.Context, s *store, counting *countbucket.Bucket, st step) (cost, error) {
	ms := d.matchMetric(st.metric)
	if st.series >= 0 {
		ms = d.matchSeries(st.metric, st.series)
	}
	needed, err := d.grid.ChunkBytes(st.metric, st.series)
	if err != nil {
		return cost{}, err
	}
	c := cost{name: st.name, known: st.known, again: st.again, slow: st.slow, one: st.series >= 0, needed: needed * int64(d.days)}
	runtime.GC()
	counting.Reset()
	cpu, begin := cpuTime(), time.Now()
	gotSeries, samples, sum, err := d.read(ctx, s, ms)
	c.took, c.cpu = time.Since(begin), cpuTime()-cpu
	if err != nil {
		return c, err
	}
	if err := d.check(st.metric, st.series, gotSeries, samples, sum); err != nil {
		return c, err
	}
	ops := counting.Ops()
	c.gets, c.peak, c.bytes = len(ops), counting.PeakInFlight(), ops.Bytes()
	for _, of := range ops.ByBlock() {
		// Blocks do not wait for one another, but on a busy machine one may begin late, so waves are counted in each.
		c.waves = max(c.waves, of.Waves())
		c.perBlock, c.most = max(c.perBlock, len(of)), max(c.most, of.Bytes())
	}
	return c, nil
}

// misses names the figures that are worse than their bars. Durations depend on the machine and are none of them.
func misses(costs []cost, days int) (out []string) {
	for _, c := range costs {
		add := func(format string, args ...any) { out = append(out, c.name+": "+fmt.Sprintf(format, args...)) }
		allowed := 2
		if !c.known {
			allowed = 3
		}
		if c.again {
			allowed = 0
		}
		if c.perBlock > allowed {
			add("%d GETs of one block, %d are allowed", c.perBlock, allowed)
		}
		if c.gets > allowed*days {
			add("%d operations, %d are allowed", c.gets, allowed*days)
		}
		if c.slow && c.waves > allowed {
			add("%d waves, %d are allowed", c.waves, allowed)
		}
		switch {
		case c.again:
		case c.one && c.known && c.most > 64<<10:
			add("%d bytes of one block, %d are allowed", c.most, 64<<10)
		case !c.one && float64(c.bytes) > 1.2*float64(c.needed):
			add("%d bytes for %d that are needed", c.bytes, c.needed)
		}
	}
	return out
}

func printCosts(costs []cost) {
	fmt.Println("| query | GETs | most of a block | waves | at once | MiB | × needed | most KiB of a block | ms | CPU-ms |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|")
	for _, c := range costs {
		waves := strconv.Itoa(c.waves)
		if !c.slow {
			waves = "–"
		}
		fmt.Printf("| %s | %d | %d | %s | %d | %.1f | %.2f | %.0f | %d | %d |\n", c.name, c.gets, c.perBlock, waves, c.peak,
			float64(c.bytes)/(1<<20), float64(c.bytes)/float64(c.needed), float64(c.most)/(1<<10),
			c.took.Milliseconds(), c.cpu.Milliseconds())
	}
}

// bucketBar is how long a cold query may wait for the bucket, beside transfer.
const bucketBar = time.Second

// printTimes says what each cold query took, and how much of it the latency was: without it, what is left is transfer,
// which is from a local disk here, and decoding. Of one series that is next to nothing.
func printTimes(costs []cost) {
	without := map[string]time.Duration{}
	for _, c := range costs {
		if name, ok := strings.CutSuffix(c.name, noLatency); ok {
			without[name] = c.took
		}
	}
	for _, c := range costs {
		if !c.slow || c.again {
			continue
		}
		fmt.Printf("%s: %.2f s", c.name, c.took.Seconds())
		if local, ok := without[c.name]; ok {
			fmt.Printf(", %.2f s of it transfer and decoding, %.2f s for the bucket", local.Seconds(), (c.took - local).Seconds())
		}
		fmt.Printf("; the bar is %.1f s for the bucket\n", bucketBar.Seconds())
	}
}
