package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/countbucket"
)

// warmQuery is a PromQL query over the last days.
type warmQuery struct {
	text string
	days int
	step time.Duration // 0 is an instant query at the end
}

func (d *data) warmQueries() []warmQuery {
	g := d.grid
	return []warmQuery{
		{fmt.Sprintf("sum(rate(%s[5m]))", g.Metric(0)), d.days, time.Hour},
		{fmt.Sprintf("sum by (zone) (rate(%s[1h]))", g.Metric(3)), min(7, d.days), 10 * time.Minute},
		{fmt.Sprintf("max by (namespace) (%s)", g.Metric(1)), 1, time.Minute},
		{fmt.Sprintf("quantile_over_time(0.9, %s{job=\"job-3\"}[1h])", g.Metric(1)), d.days, 6 * time.Hour},
		{fmt.Sprintf("%s{pod=\"pod-00017\"}", g.Metric(2)), d.days, time.Hour},
		{"sum by (__name__) ({__name__=~\"grid_metric_00[0-4]\", pod=~\"pod-0001.\"})", min(7, d.days), 30 * time.Minute},
		{fmt.Sprintf("count by (job) (%s)", g.Metric(4)), 1, 0},
		{"count(count by (__name__) ({pod=\"pod-00042\"}))", 1, 0},
	}
}

// side is one of the two that answer.
type side struct {
	queryable storage.Queryable
	times     []measured
}

type measured struct{ took, cpu time.Duration }

// warmCost is what a query took on both sides, medians.
type warmCost struct {
	query        warmQuery
	ours, theirs measured
	gets         int
}

type blockQueryable func(mint, maxt int64) (storage.Querier, error)

// Querier implements storage.Queryable.
func (f blockQueryable) Querier(mint, maxt int64) (storage.Querier, error) { return f(mint, maxt) }

// warm runs PromQL over the store and over Prometheus' block reader with one engine, until both have seen each query.
func (d *data) warm(ctx context.Context, bkt bucket.Bucket, cacheDir, blockDir string, rounds int) ([]warmCost, error) {
	counting := countbucket.New(bkt)
	s, err := newStore(counting, cacheDir, memory, d.bytes+1<<30)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.close() }()
	theirs, closeBlocks, err := d.prometheus(blockDir)
	if err != nil {
		return nil, err
	}
	defer closeBlocks()
	ours := blockQueryable(func(mint, maxt int64) (storage.Querier, error) {
		return s.Querier(tenant, d.blocks, nil, mint, maxt)
	})
	engine := promql.NewEngine(promql.EngineOpts{
		Logger: slog.New(slog.DiscardHandler), MaxSamples: math.MaxInt32, Timeout: time.Hour,
	})
	var out []warmCost
	for _, q := range d.warmQueries() {
		c := warmCost{query: q}
		sides := []*side{{queryable: ours}, {queryable: theirs}}
		for round := -1; round < rounds; round++ { // the first warms up
			var answers []string
			for i := range sides {
				each := sides[(i+round+1)%2]
				runtime.GC()
				counting.Reset()
				cpu, begin := cpuTime(), time.Now()
				result, err := d.promQL(ctx, engine, each.queryable, q)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", q.text, err)
				}
				if round >= 0 {
					each.times = append(each.times, measured{time.Since(begin), cpuTime() - cpu})
				}
				answers = append(answers, result)
				c.gets = max(c.gets, len(counting.Ops()))
				if round < 0 {
					c.gets = 0
				}
			}
			if answers[0] != answers[1] {
				return nil, fmt.Errorf("%s: the answers differ", q.text)
			}
		}
		c.ours, c.theirs = median(sides[0].times), median(sides[1].times)
		out = append(out, c)
	}
	return out, nil
}

// promQL returns the answer as text.
func (d *data) promQL(ctx context.Context, engine *promql.Engine, from storage.Queryable, q warmQuery) (string, error) {
	_, maxt := d.rangeOf()
	end := time.UnixMilli(maxt)
	var query promql.Query
	var err error
	if q.step == 0 {
		query, err = engine.NewInstantQuery(ctx, from, nil, q.text, end)
	} else {
		begin := end.Add(-time.Duration(q.days)*24*time.Hour + 2*time.Hour)
		query, err = engine.NewRangeQuery(ctx, from, nil, q.text, begin, end, q.step)
	}
	if err != nil {
		return "", err
	}
	defer query.Close()
	r := query.Exec(ctx)
	if r.Err != nil {
		return "", r.Err
	}
	return r.String(), nil
}

// prometheus returns the blocks as Prometheus reads them from local disk.
func (d *data) prometheus(dir string) (storage.Queryable, func(), error) {
	var blocks []*tsdb.Block
	closeAll := func() {
		for _, b := range blocks {
			_ = b.Close()
		}
	}
	for _, b := range d.blocks {
		local, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), filepath.Join(dir, b.ULID.String()), nil, nil)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		blocks = append(blocks, local)
	}
	return blockQueryable(func(mint, maxt int64) (storage.Querier, error) {
		var qs []storage.Querier
		for _, b := range blocks {
			if b.OverlapsClosedInterval(mint, maxt) {
				q, err := tsdb.NewBlockQuerier(b, mint, maxt)
				if err != nil {
					return nil, err
				}
				qs = append(qs, q)
			}
		}
		return storage.NewMergeQuerier(qs, nil, storage.ChainedSeriesMerge), nil
	}), closeAll, nil
}

func median(all []measured) (m measured) {
	var took, cpu []time.Duration
	for _, x := range all {
		took, cpu = append(took, x.took), append(cpu, x.cpu)
	}
	slices.Sort(took)
	slices.Sort(cpu)
	return measured{took[len(took)/2], cpu[len(cpu)/2]}
}

func printWarm(costs []warmCost) {
	fmt.Println("| query | days | step | operations | ms, Prometheus | ms, Duramen | ratio | CPU-ms, Prometheus | CPU-ms, Duramen | ratio |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|")
	ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
	ratio := func(a, b time.Duration) float64 { return float64(a) / float64(max(b, 1)) }
	var all warmCost
	logs, cpuLogs := 0.0, 0.0
	for _, c := range costs {
		fmt.Printf("| `%s` | %d | %s | %d | %.0f | %.0f | %.2f | %.0f | %.0f | %.2f |\n", c.query.text, c.query.days, c.query.step, c.gets,
			ms(c.theirs.took), ms(c.ours.took), ratio(c.ours.took, c.theirs.took),
			ms(c.theirs.cpu), ms(c.ours.cpu), ratio(c.ours.cpu, c.theirs.cpu))
		all.ours.took, all.theirs.took = all.ours.took+c.ours.took, all.theirs.took+c.theirs.took
		all.ours.cpu, all.theirs.cpu = all.ours.cpu+c.ours.cpu, all.theirs.cpu+c.theirs.cpu
		logs += math.Log(ratio(c.ours.took, c.theirs.took))
		cpuLogs += math.Log(ratio(c.ours.cpu, c.theirs.cpu))
	}
	n := float64(len(costs))
	fmt.Printf("| all; geometric mean of the ratios | | | | %.0f | %.0f | %.2f; %.2f | %.0f | %.0f | %.2f; %.2f |\n",
		ms(all.theirs.took), ms(all.ours.took), ratio(all.ours.took, all.theirs.took), math.Exp(logs/n),
		ms(all.theirs.cpu), ms(all.ours.cpu), ratio(all.ours.cpu, all.theirs.cpu), math.Exp(cpuLogs/n))
}
