package main

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/duramendb/duramen/chunkstore/blockgen"
)

const (
	tenantID = "bench"
	start    = 1_700_006_400_000 // 2023-11-15
	slotMS   = 2 * 60 * 60 * 1000
	stepMS   = 60_000
	perSlot  = slotMS / stepMS
	metrics  = 200
)

// data is the blocks of one tenant: each slot as often as there are replicas, which are equal but for a few samples that
// one of them misses.
type data struct {
	slots, replicas, series int
	seed                    uint64
	perturbed               float64
}

// write writes all blocks as a bucket on the filesystem has them, and returns their size.
func (d *data) write(dir string) (bytes int64, err error) {
	r := rand.New(rand.NewPCG(d.seed, 1))
	values := make([]float64, d.series)
	lsets := make([]labels.Labels, d.series)
	for i := range lsets {
		lsets[i] = d.labels(i)
	}
	slices.SortFunc(lsets, labels.Compare)
	for slot := range d.slots {
		blocks := make([][]blockgen.Series, d.replicas)
		for i, lset := range lsets {
			all, v := d.samples(r, i, values[i])
			values[i] = v
			whole, err := d.encode(slot, i, all, -1)
			if err != nil {
				return 0, err
			}
			odd, without := -1, whole
			if r.Float64() < d.perturbed {
				odd = r.IntN(d.replicas)
				if without, err = d.encode(slot, i, all, 1+r.IntN(perSlot-2)); err != nil {
					return 0, err
				}
			}
			for replica := range blocks {
				c := whole
				if replica == odd {
					c = without
				}
				blocks[replica] = append(blocks[replica], blockgen.Series{Labels: lset, Chunks: []blockgen.Chunk{c}})
			}
		}
		for replica, series := range blocks {
			mint := int64(start + slot*slotMS)
			o := blockgen.Options{ULID: blockgen.ULID(mint+slotMS, uint64(replica)), MinTime: mint, MaxTime: mint + slotMS, Sidecar: true}
			b, err := blockgen.Build(o, series)
			if err != nil {
				return 0, err
			}
			if _, err := b.WriteDir(filepath.Join(dir, bucketFolder, tenantID)); err != nil {
				return 0, err
			}
		}
	}
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		bytes += info.Size()
		return err
	})
	return bytes, err
}

// labels returns a series as an exporter in a cluster has it.
func (d *data) labels(i int) labels.Labels {
	pod := i / metrics
	b := labels.NewScratchBuilder(8)
	b.Add(labels.MetricName, fmt.Sprintf("app_component_%03d_total", i%metrics))
	b.Add("cluster", "eu-1")
	b.Add("instance", fmt.Sprintf("10.0.%d.%d:9100", pod/250, pod%250))
	b.Add("job", fmt.Sprintf("job-%d", pod%17))
	b.Add("namespace", fmt.Sprintf("namespace-%d", pod%23))
	b.Add("pod", fmt.Sprintf("service-%d-7c9f8d-%05d", pod%17, pod))
	if i%3 == 0 {
		b.Add("code", []string{"200", "404", "500"}[i/3%3])
	}
	b.Sort()
	return b.Labels()
}

// samples returns the values of a slot: counters, gauges, and series that hardly change.
func (d *data) samples(r *rand.Rand, i int, v float64) (all []float64, last float64) {
	for range perSlot {
		switch i % 4 {
		case 0, 1:
			v += float64(r.IntN(50))
		case 2:
			v = float64(r.IntN(100_000)) / 100
		default:
			if r.IntN(40) == 0 {
				v++
			}
		}
		all = append(all, v)
	}
	return all, v
}

// encode makes the chunk of a slot without the given sample.
func (d *data) encode(slot, i int, values []float64, without int) (c blockgen.Chunk, err error) {
	x := chunkenc.NewXORChunk()
	app, err := x.Appender()
	if err != nil {
		return c, err
	}
	offset := int64(i%600) * 100 // scraped at a time of its own
	for k, v := range values {
		t := int64(start+slot*slotMS+k*stepMS) + offset
		if k == without {
			continue
		}
		if c.Samples == 0 {
			c.MinTime = t
		}
		c.MaxTime = t
		c.Samples++
		app.Append(0, t, v)
	}
	c.Encoding, c.Data = chunkenc.EncXOR, x.Bytes()
	return c, nil
}
