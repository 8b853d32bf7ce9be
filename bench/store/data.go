package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/budget"
	"github.com/duramendb/duramen/chunkstore/cache"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/reader"
)

const (
	tenant = "bench"
	// start is the begin of the first day: 2023-11-15.
	start = 1_700_006_400_000
	// minMetrics is how many metrics the cold queries need: each asks one that was not asked before.
	minMetrics = 12
)

// data is the blocks and what is known of them.
type data struct {
	grid   blockgen.Grid
	days   int
	blocks []manifest.Block
	// bytes is the size of all blocks, sidecarBytes that of their sidecars.
	bytes, sidecarBytes int64
}

// unlimited are no limits.
type unlimited struct{}

func (unlimited) MaxFetchedSeriesPerQuery(string) int       { return 0 }
func (unlimited) MaxFetchedChunkBytesPerQuery(string) int64 { return 0 }

// noSidecars builds none: the blocks have theirs.
type noSidecars struct{}

func (noSidecars) Ensure(_ context.Context, _ string, b manifest.Block) (reader.SidecarInfo, error) {
	return reader.SidecarInfo{}, fmt.Errorf("block %s should have a sidecar", b.ULID)
}

// store is the reader with its caches, as the product sets it up.
type store struct {
	*reader.Reader

	local *reader.Local
	disk  *cache.Disk
}

// newStore returns a store with a disk cache in dir and budgets of that much memory.
func newStore(bkt bucket.Bucket, dir string, memory, diskBytes int64) (*store, error) {
	log := slog.New(slog.DiscardHandler)
	disk, err := cache.OpenDisk(cache.DiskConfig{Dir: dir, MaxBytes: diskBytes}, log, nil)
	if err != nil {
		return nil, err
	}
	<-disk.Loaded()
	cfg := reader.Config{
		ParallelBlocks: 64, DirectoryCacheBytes: memory / 20, PageCacheBytes: memory / 10,
	}
	pool := budget.NewPool(budget.PoolConfig{Bytes: memory / 4}, nil)
	local, err := reader.NewLocal(cfg, bkt, noSidecars{}, disk, pool, unlimited{}, log, nil)
	if err != nil {
		return nil, err
	}
	r, err := reader.New(cfg, local, log, nil)
	return &store{r, local, disk}, err
}

func (s *store) close() error {
	if err := s.local.Close(); err != nil {
		return err
	}
	return s.disk.Close()
}

// matchSeries matches one series of a metric.
func (d *data) matchSeries(metric, series int) []*labels.Matcher {
	return append(d.matchMetric(metric),
		labels.MustNewMatcher(labels.MatchEqual, "pod", d.grid.Labels(metric, series).Get("pod")))
}

func (d *data) matchMetric(metric int) []*labels.Matcher {
	return []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, d.grid.Metric(metric))}
}

// rangeOf is the time of all blocks, both ends inclusive.
func (d *data) rangeOf() (mint, maxt int64) {
	mint, _ = d.grid.Range(0)
	_, maxt = d.grid.Range(d.days - 1)
	return mint, maxt - 1
}

// read selects series over all blocks and reads all samples. It returns how many there are and the sum of their values.
func (d *data) read(ctx context.Context, s *store, ms []*labels.Matcher) (series, samples int, sum float64, err error) {
	mint, maxt := d.rangeOf()
	q, err := s.Querier(tenant, d.blocks, nil, mint, maxt)
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() {
		if closed := q.Close(); err == nil {
			err = closed
		}
	}()
	var it chunkenc.Iterator
	set := q.Select(ctx, true, &storage.SelectHints{Start: mint, End: maxt}, ms...)
	for set.Next() {
		it = set.At().Iterator(it)
		for it.Next() != chunkenc.ValNone {
			_, v := it.At()
			sum += v
			samples++
		}
		if err := it.Err(); err != nil {
			return 0, 0, 0, err
		}
		series++
	}
	return series, samples, sum, set.Err()
}

// check compares an answer with the formula of the grid; series -1 is all of the metric.
func (d *data) check(metric, series, gotSeries, gotSamples int, gotSum float64) error {
	from, to := series, series+1
	if series < 0 {
		from, to = 0, d.grid.Series
	}
	sum := 0.0
	for s := from; s < to; s++ {
		for k := range d.grid.PerDay() {
			sum += d.grid.Value(metric, s, k)
		}
	}
	sum *= float64(d.days) // all values are multiples of 1/8, so that sums are exact
	if gotSeries != to-from || gotSamples != (to-from)*d.days*d.grid.PerDay() || gotSum != sum {
		return fmt.Errorf("%d series with %d samples that sum up to %g; want %d, %d and %g",
			gotSeries, gotSamples, gotSum, to-from, (to-from)*d.days*d.grid.PerDay(), sum)
	}
	return nil
}
