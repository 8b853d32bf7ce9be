package index

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	tsdbindex "github.com/prometheus/prometheus/tsdb/index"
)

// Series is the part of a block's own index that Build reads: *index.Reader of the TSDB has it.
type Series interface {
	Postings(ctx context.Context, name string, values ...string) (tsdbindex.Postings, error)
	Series(ref storage.SeriesRef, b *labels.ScratchBuilder, chks *[]chunks.Meta) error
}

// Build writes the sidecar of a block that has its own index only: one that somebody else wrote, or that was cut before.
// mint, maxt and segments are those of NewBuilder, the results those of Finish. It reads the series twice and takes eight
// bytes of memory for each chunk.
//
// The index does not say how long a chunk is. It ends where the next one in its file begins, or with the file.
func Build(ctx context.Context, w io.Writer, ix Series, mint, maxt int64, segments []int64) (size, directory int64, err error) {
	b, err := NewBuilder(w, mint, maxt, segments)
	if err != nil {
		return 0, 0, err
	}
	starts := make([][]uint32, len(segments))
	err = eachSeries(ctx, ix, func(lset labels.Labels, metas []chunks.Meta) error {
		for _, m := range metas {
			segment, offset := chunks.BlockChunkRef(m.Ref).Unpack()
			if segment >= len(segments) {
				return fmt.Errorf("a chunk of %s is in file %d of %d", lset, segment+1, len(segments))
			}
			starts[segment] = append(starts[segment], uint32(offset))
		}
		return nil
	})
	if err != nil {
		return 0, 0, b.fail(err)
	}
	for _, s := range starts {
		if !slices.IsSorted(s) {
			slices.Sort(s)
		}
	}
	var cs []Chunk
	err = eachSeries(ctx, ix, func(lset labels.Labels, metas []chunks.Meta) error {
		cs = cs[:0]
		for _, m := range metas {
			segment, offset := chunks.BlockChunkRef(m.Ref).Unpack()
			end := segments[segment]
			if i, _ := slices.BinarySearch(starts[segment], uint32(offset)+1); i < len(starts[segment]) {
				end = int64(starts[segment][i])
			}
			if end <= int64(offset) {
				return fmt.Errorf("a chunk of %s begins behind the end of file %d", lset, segment+1)
			}
			cs = append(cs, Chunk{m.MinTime, m.MaxTime, uint32(segment), uint32(offset), uint32(end - int64(offset))})
		}
		return b.Add(lset, cs)
	})
	if err != nil {
		return 0, 0, b.fail(err)
	}
	return b.Finish()
}

func eachSeries(ctx context.Context, ix Series, fn func(labels.Labels, []chunks.Meta) error) error {
	all, err := ix.Postings(ctx, "", "") // the key of all series
	if err != nil {
		return err
	}
	var b labels.ScratchBuilder
	var metas []chunks.Meta
	for n := 0; all.Next(); n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := ix.Series(all.At(), &b, &metas); err != nil {
			return fmt.Errorf("series %d: %w", all.At(), err)
		}
		if err := fn(b.Labels(), metas); err != nil {
			return err
		}
	}
	return all.Err()
}
