package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	tsdbindex "github.com/prometheus/prometheus/tsdb/index"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/index"
)

// sidecar prints what the sidecar of the first block takes and costs.
func (d *data) sidecar(ctx context.Context, bkt bucket.Bucket) error {
	b := d.blocks[0]
	fmt.Printf("- %.2f %% of the blocks' bytes, %.1f bytes a series and day; the directory takes %d bytes of %d\n",
		100*float64(d.sidecarBytes)/float64(d.bytes), float64(b.SidecarBytes)/float64(b.Series), b.DirectoryBytes, b.SidecarBytes)
	raw, err := get(ctx, bkt, block.Key(tenant, b.ULID, block.IndexName))
	if err != nil {
		return err
	}
	var segments []int64
	for i := range 1000 {
		o, err := bkt.Stat(ctx, block.Key(tenant, b.ULID, block.SegmentName(i+1)))
		if err != nil {
			break
		}
		segments = append(segments, o.Size)
	}
	ix, err := tsdbindex.NewReader(bytesOf(raw), tsdbindex.DecodePostingsRaw)
	if err != nil {
		return err
	}
	const times = 5
	var built bytes.Buffer
	cpu := cpuTime()
	for range times {
		built.Reset()
		if _, _, err := index.Build(ctx, &built, ix, b.MinTime, b.MaxTime, segments); err != nil {
			return err
		}
	}
	perSeries := func(cpu time.Duration) float64 { return float64(cpu.Nanoseconds()) / 1000 / times / float64(b.Series) }
	fmt.Printf("- built from the block's index: %.1f CPU-µs a series\n", perSeries(cpuTime()-cpu))
	return d.pages(built.Bytes(), perSeries)
}

// pages prints what decoding and filtering of all pages takes.
func (d *data) pages(sidecar []byte, perSeries func(time.Duration) float64) error {
	dec, err := index.NewDecoder()
	if err != nil {
		return err
	}
	defer dec.Close()
	dir, err := index.ParseDirectory(dec, sidecar)
	if err != nil {
		return err
	}
	const times = 5
	ms := []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "pod", "pod-0.*7")}
	pages := make([]*index.Page, dir.Pages())
	begin := cpuTime()
	for range times {
		for i := range pages {
			e := dir.Page(i)
			if pages[i], err = dir.DecodePage(dec, i, sidecar[e.Offset:e.Offset+e.Length]); err != nil {
				return err
			}
		}
	}
	decoded := cpuTime()
	var found []int
	for range times {
		for _, p := range pages {
			found = p.Select(found[:0], ms)
		}
	}
	decode, filter := decoded-begin, cpuTime()-decoded
	fmt.Printf("- pages decoded: %.2f CPU-µs a series; filtered by a regular expression: %.2f CPU-µs a series\n",
		perSeries(decode), perSeries(filter))
	return nil
}

func get(ctx context.Context, bkt bucket.Bucket, key string) ([]byte, error) {
	r, err := bkt.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

type bytesOf []byte

// Len implements the TSDB's ByteSlice.
func (b bytesOf) Len() int { return len(b) }

// Range implements the TSDB's ByteSlice.
func (b bytesOf) Range(start, end int) []byte { return b[start:end] }
