package reader

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/prometheus/prometheus/util/annotations"
	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/samplemerge"
)

// parallelLoads bounds the indexes that one query fetches at the same time.
const parallelLoads = 8

// ErrClosed means that a querier was used or closed after its Close.
var ErrClosed = errors.New("querier is closed")

// view is what the two kinds of querier share: the blocks of one query, opened by the first call that needs them.
type view struct {
	r          *Reader
	tenant     string
	blocks     []manifest.Block // that overlap [mint, maxt]
	mint, maxt int64

	mu     sync.Mutex
	open   []*openBlock // nil until all of them are open
	closed bool
}

// openBlock is a block with a handle on its index.
type openBlock struct {
	manifest.Block
	index   *blockIndex
	release func()
}

func (r *Reader) view(tenant string, blocks []manifest.Block, mint, maxt int64) *view {
	overlapping := make([]manifest.Block, 0, len(blocks))
	for _, b := range blocks {
		if b.Overlaps(mint, maxt) {
			overlapping = append(overlapping, b)
		}
	}
	return &view{r: r, tenant: tenant, blocks: overlapping, mint: mint, maxt: maxt}
}

// opened returns all blocks or an error; a later call tries again.
func (v *view) opened(ctx context.Context) ([]*openBlock, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil, ErrClosed
	}
	if v.open != nil {
		return v.open, nil
	}
	open := make([]*openBlock, len(v.blocks))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelLoads)
	for i, b := range v.blocks {
		g.Go(func() error {
			ix, release, err := v.r.indexes.acquire(gctx, indexKey(v.tenant, b.ULID),
				func(ctx context.Context) (*blockIndex, error) { return v.r.loadIndex(ctx, v.tenant, b.ULID) })
			if err != nil {
				return err
			}
			open[i] = &openBlock{Block: b, index: ix, release: release}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		for _, b := range open {
			if b != nil {
				b.release()
			}
		}
		return nil, v.r.lateError(err)
	}
	v.open = open
	return open, nil
}

// Close gives the indexes back. It is called once.
func (v *view) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return ErrClosed
	}
	v.closed = true
	for _, b := range v.open {
		b.release()
	}
	v.open = nil
	return nil
}

// LabelValues returns the values of a label in order. They stay valid after Close.
func (v *view) LabelValues(
	ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	return v.union(ctx, hints, func(ix indexReader) ([]string, error) {
		return ix.SortedLabelValues(ctx, name, hints, slices.Clone(matchers)...)
	})
}

// LabelNames returns the names of all labels in order. They stay valid after Close.
func (v *view) LabelNames(
	ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	return v.union(ctx, hints, func(ix indexReader) ([]string, error) {
		return ix.LabelNames(ctx, slices.Clone(matchers)...)
	})
}

// union asks each block and returns the distinct answers in order, at most as many as hints allow.
func (v *view) union(
	ctx context.Context, hints *storage.LabelHints, ask func(indexReader) ([]string, error),
) ([]string, annotations.Annotations, error) {
	open, err := v.opened(ctx)
	if err != nil {
		return nil, nil, err
	}
	var all []string
	for _, b := range open {
		values, err := v.guarded(b, ask)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, values...)
		slices.Sort(all)
		all = slices.Compact(all)
	}
	if hints != nil && hints.Limit > 0 && len(all) > hints.Limit {
		all = all[:hints.Limit]
	}
	return all, nil, nil
}

func (v *view) guarded(b *openBlock, ask func(indexReader) ([]string, error)) (values []string, err error) {
	defer func() { err = v.judge(b, err) }()
	defer recovered(v.tenant, b.ULID, &err)
	values, err = ask(indexReader{b.index})
	return values, err
}

// judge explains an error that reading a block's index gave. An index whose damage shows only now, in a series or a list of
// postings, is read anew by the next query.
func (v *view) judge(b *openBlock, err error) error {
	err = blockError(v.tenant, b.ULID, err)
	if errors.Is(err, ErrDamaged) {
		v.r.indexes.discard(indexKey(v.tenant, b.ULID), b.index)
	}
	return err
}

// within narrows hints to the querier's own range: Prometheus' block queriers follow the hints alone, which speak of
// the whole query and not of this querier's part of it.
func (v *view) within(hints *storage.SelectHints) (narrowed *storage.SelectHints, empty bool) {
	if hints == nil {
		return nil, false
	}
	h := *hints
	h.Start, h.End = max(h.Start, v.mint), min(h.End, v.maxt)
	return &h, h.Start > h.End
}

// blockReader is one block as Prometheus' queriers want it, for one Select.
type blockReader struct {
	chunks *chunkReader
	block  *openBlock
}

var _ tsdb.BlockReader = blockReader{}

func (v *view) blockReader(ctx context.Context, b *openBlock) blockReader {
	return blockReader{chunks: &chunkReader{ctx: ctx, r: v.r, tenant: v.tenant, id: b.ULID}, block: b}
}

func (b blockReader) Index() (tsdb.IndexReader, error)  { return indexReader{b.block.index}, nil }
func (b blockReader) Chunks() (tsdb.ChunkReader, error) { return b.chunks, nil }
func (b blockReader) Size() int64                       { return b.block.SizeBytes }

// Tombstones returns none: deletions are the manifest's.
func (blockReader) Tombstones() (tombstones.Reader, error) { return tombstones.NewMemTombstones(), nil }

// Meta returns what the manifest knows of the block.
func (b blockReader) Meta() tsdb.BlockMeta {
	m := tsdb.BlockMeta{ULID: b.block.ULID, MinTime: b.block.MinTime, MaxTime: b.block.MaxTime, Version: 1}
	m.Stats = tsdb.BlockStats{NumSeries: b.block.Series, NumSamples: b.block.Samples, NumChunks: b.block.Chunks}
	m.Compaction = tsdb.BlockMetaCompaction{Level: b.block.Level, Sources: b.block.Sources}
	return m
}

// querier is a storage.Querier over blocks.
type querier struct{ *view }

// Select returns the series of all blocks, merged. ctx bounds the reading of the set as well.
func (q *querier) Select(
	ctx context.Context, sortSeries bool, hints *storage.SelectHints, matchers ...*labels.Matcher,
) storage.SeriesSet {
	open, err := q.opened(ctx)
	if err != nil {
		return storage.ErrSeriesSet(err)
	}
	narrowed, empty := q.within(hints)
	if empty {
		return storage.EmptySeriesSet()
	}
	sets := make([]storage.SeriesSet, 0, len(open))
	for _, b := range open {
		set, err := q.selectOne(ctx, b, sortSeries || len(open) > 1, narrowed, slices.Clone(matchers))
		if err != nil {
			return storage.ErrSeriesSet(err)
		}
		sets = append(sets, set)
	}
	return storage.NewMergeSeriesSet(sets, limit(hints), samplemerge.Series)
}

func (q *querier) selectOne(
	ctx context.Context, b *openBlock, sortSeries bool, hints *storage.SelectHints, matchers []*labels.Matcher,
) (set storage.SeriesSet, err error) {
	defer func() { err = q.judge(b, err) }()
	defer recovered(q.tenant, b.ULID, &err)
	bq, err := tsdb.NewBlockQuerier(q.blockReader(ctx, b), q.mint, q.maxt)
	if err != nil {
		return nil, err
	}
	return &seriesSet{SeriesSet: bq.Select(ctx, sortSeries, hints, matchers...), v: q.view, b: b}, nil
}

// seriesSet names the block in the errors of its series set.
type seriesSet struct {
	storage.SeriesSet
	v        *view
	b        *openBlock
	panicked error
}

func (s *seriesSet) Next() (ok bool) {
	defer recovered(s.v.tenant, s.b.ULID, &s.panicked)
	return s.panicked == nil && s.SeriesSet.Next()
}

func (s *seriesSet) Err() error {
	if s.panicked != nil {
		return s.v.judge(s.b, s.panicked)
	}
	return s.v.judge(s.b, s.SeriesSet.Err())
}

// chunkQuerier is a storage.ChunkQuerier over blocks.
type chunkQuerier struct{ *view }

// Select is querier.Select for chunks.
func (q *chunkQuerier) Select(
	ctx context.Context, sortSeries bool, hints *storage.SelectHints, matchers ...*labels.Matcher,
) storage.ChunkSeriesSet {
	open, err := q.opened(ctx)
	if err != nil {
		return storage.ErrChunkSeriesSet(err)
	}
	narrowed, empty := q.within(hints)
	if empty {
		return storage.NewMergeChunkSeriesSet(nil, 0, samplemerge.ChunkSeries)
	}
	sets := make([]storage.ChunkSeriesSet, 0, len(open))
	for _, b := range open {
		set, err := q.selectOne(ctx, b, sortSeries || len(open) > 1, narrowed, slices.Clone(matchers))
		if err != nil {
			return storage.ErrChunkSeriesSet(err)
		}
		sets = append(sets, set)
	}
	return storage.NewMergeChunkSeriesSet(sets, limit(hints), samplemerge.ChunkSeries)
}

func (q *chunkQuerier) selectOne(
	ctx context.Context, b *openBlock, sortSeries bool, hints *storage.SelectHints, matchers []*labels.Matcher,
) (set storage.ChunkSeriesSet, err error) {
	defer func() { err = q.judge(b, err) }()
	defer recovered(q.tenant, b.ULID, &err)
	bq, err := tsdb.NewBlockChunkQuerier(q.blockReader(ctx, b), q.mint, q.maxt)
	if err != nil {
		return nil, err
	}
	return &chunkSeriesSet{ChunkSeriesSet: bq.Select(ctx, sortSeries, hints, matchers...), v: q.view, b: b}, nil
}

// chunkSeriesSet is seriesSet for chunks.
type chunkSeriesSet struct {
	storage.ChunkSeriesSet
	v        *view
	b        *openBlock
	panicked error
}

func (s *chunkSeriesSet) Next() (ok bool) {
	defer recovered(s.v.tenant, s.b.ULID, &s.panicked)
	return s.panicked == nil && s.ChunkSeriesSet.Next()
}

func (s *chunkSeriesSet) Err() error {
	if s.panicked != nil {
		return s.v.judge(s.b, s.panicked)
	}
	return s.v.judge(s.b, s.ChunkSeriesSet.Err())
}

func limit(hints *storage.SelectHints) int {
	if hints == nil {
		return 0
	}
	return hints.Limit
}
