package reader

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tombstone"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/samplemerge"
)

// view is what the two kinds of querier share: one query's use of some blocks.
type view struct {
	r          *Reader
	tenant     string
	blocks     []manifest.Block // that overlap [mint, maxt]
	hidden     *tombstone.Set
	mint, maxt int64
	session    Session
	closed     bool
}

func (r *Reader) view(tenant string, blocks []manifest.Block, hidden *tombstone.Set, mint, maxt int64) *view {
	overlapping := make([]manifest.Block, 0, len(blocks))
	for _, b := range blocks {
		if b.Overlaps(mint, maxt) {
			overlapping = append(overlapping, b)
		}
	}
	v := &view{r: r, tenant: tenant, blocks: overlapping, hidden: hidden, mint: mint, maxt: maxt}
	v.session = r.source.Session(tenant, overlapping, mint, maxt)
	return v
}

// Close gives back what the query holds. It is called once.
func (v *view) Close() error {
	if v.closed {
		return ErrClosed
	}
	v.closed = true
	return v.session.Close()
}

// LabelValues returns the values of a label in order. They stay valid after Close.
func (v *view) LabelValues(
	ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	if v.closed {
		return nil, nil, ErrClosed
	}
	values, err := v.session.LabelValues(ctx, name, hints, slices.Clone(matchers)...)
	return values, nil, err
}

// LabelNames returns the names of all labels in order. They stay valid after Close.
func (v *view) LabelNames(
	ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	if v.closed {
		return nil, nil, ErrClosed
	}
	names, err := v.session.LabelNames(ctx, hints, slices.Clone(matchers)...)
	return names, nil, err
}

// within narrows hints to the querier's own range: hints speak of the whole query and not of this querier's part of it.
func (v *view) within(hints *storage.SelectHints) (narrowed *storage.SelectHints, t trim) {
	t = trim{mint: v.mint, maxt: v.maxt}
	if hints == nil {
		return nil, t
	}
	h := *hints
	h.Start, h.End = max(h.Start, v.mint), min(h.End, v.maxt)
	t.mint, t.maxt, t.off = h.Start, h.End, h.DisableTrimming
	return &h, t
}

// sets returns the matching series of each block.
func (v *view) sets(
	ctx context.Context, hints *storage.SelectHints, t trim, matchers []*labels.Matcher,
) ([]storage.ChunkSeriesSet, error) {
	if v.closed {
		return nil, ErrClosed
	}
	if t.mint > t.maxt {
		return nil, nil
	}
	return v.session.Select(ctx, hints, slices.Clone(matchers)...)
}

// fault explains why a chunk of the block with this number does not decode.
func (v *view) fault(number int) func(chunks.Meta, error) error {
	return func(meta chunks.Meta, err error) error {
		if errkind.Of(err) == errkind.Internal {
			segment, offset := chunks.BlockChunkRef(meta.Ref).Unpack()
			key := block.Key(v.tenant, v.blocks[number].ULID, block.SegmentName(segment+1))
			err = errkind.New(errkind.Corrupt, "read block %s of tenant %s: object %s: chunk at byte %d: %w: %w",
				v.blocks[number].ULID, v.tenant, key, offset, ErrDamaged, err)
			v.r.metrics.undecoded.Inc()
		}
		return err
	}
}

// querier is a storage.Querier over blocks.
type querier struct{ *view }

// Select returns the series of all blocks, merged. ctx bounds the reading of the set as well.
func (q *querier) Select(
	ctx context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher,
) storage.SeriesSet {
	narrowed, t := q.within(hints)
	sets, err := q.sets(ctx, narrowed, t, matchers)
	if err != nil {
		return storage.ErrSeriesSet(err)
	}
	out := make([]storage.SeriesSet, len(sets))
	for i, set := range sets {
		out[i] = q.hidden.Of(&q.blocks[i]).Series(&sampleSet{set, t, q.fault(i)})
	}
	return storage.NewMergeSeriesSet(out, limit(hints), samplemerge.Series)
}

// chunkQuerier is a storage.ChunkQuerier over blocks.
type chunkQuerier struct{ *view }

// Select is querier.Select for chunks.
func (q *chunkQuerier) Select(
	ctx context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher,
) storage.ChunkSeriesSet {
	narrowed, t := q.within(hints)
	if narrowed != nil {
		narrowed.Func = "" // "series" asks for no samples, which here is not what it means
	}
	sets, err := q.sets(ctx, narrowed, t, matchers)
	if err != nil {
		return storage.ErrChunkSeriesSet(err)
	}
	out := make([]storage.ChunkSeriesSet, len(sets))
	for i, set := range sets {
		out[i] = q.hidden.Of(&q.blocks[i]).Chunks(&chunkSet{set, t, q.fault(i)})
	}
	return storage.NewMergeChunkSeriesSet(out, limit(hints), samplemerge.ChunkSeries)
}

func limit(hints *storage.SelectHints) int {
	if hints == nil {
		return 0
	}
	return hints.Limit
}
