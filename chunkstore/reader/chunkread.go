package reader

import (
	"cmp"
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/chunkstore/cache"
	"github.com/duramendb/duramen/chunkstore/index"
)

// runsOf returns spans by place, joined where they touch or overlap. They have no bytes yet.
func runsOf(spans []index.Span) []run {
	byPlace := func(a, b index.Span) int {
		return cmp.Or(cmp.Compare(a.Segment, b.Segment), cmp.Compare(a.Start, b.Start))
	}
	if !slices.IsSortedFunc(spans, byPlace) {
		spans = slices.Clone(spans)
		slices.SortFunc(spans, byPlace)
	}
	var out []run
	for _, s := range spans {
		if n := len(out); n > 0 && out[n-1].segment == s.Segment && int64(s.Start) <= out[n-1].end {
			out[n-1].end = max(out[n-1].end, int64(s.End))
			continue
		}
		out = append(out, run{segment: s.Segment, start: int64(s.Start), end: int64(s.End)})
	}
	return out
}

// read fills the bytes of runs, all at once.
func (b *blockSelection) read(ctx context.Context, runs []run) error {
	g, ctx := errgroup.WithContext(ctx)
	for from := 0; from < len(runs); {
		to := from + 1
		for to < len(runs) && runs[to].segment == runs[from].segment {
			to++
		}
		part := runs[from:to]
		g.Go(func() error { return b.readSegment(ctx, part) })
		from = to
	}
	return g.Wait()
}

// readSegment fills the bytes of runs of one chunk file.
func (b *blockSelection) readSegment(ctx context.Context, runs []run) error {
	p := b.pages
	spans := make([]cache.Span, len(runs))
	for i, r := range runs {
		spans[i] = cache.Span{Offset: r.start, Length: r.end - r.start}
	}
	bufs, err := p.l.readObject(ctx, p.tenant, p.id, b.segment(runs[0].segment), spans, false)
	if err != nil {
		return err
	}
	for i := range runs {
		runs[i].data = bufs[i]
	}
	return nil
}

// segment names a chunk file. The directory knows only segments that it has sizes of.
func (b *blockSelection) segment(number uint32) cache.Object {
	p := b.pages
	return cache.Object{Key: segmentKey(p.tenant, p.id, number), Size: p.dir.Segments[number]}
}

// spans returns where the chunks of the candidates are.
func (b *blockSelection) spans() []index.Span {
	var out []index.Span
	for _, number := range b.candidates {
		out = append(out, b.pages.dir.Page(number).Spans...)
	}
	return out
}

// spanBytes is how long they are together.
func (b *blockSelection) spanBytes() int64 {
	total := int64(0)
	for _, r := range runsOf(b.spans()) {
		total += r.end - r.start
	}
	return total
}
