package fanout

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tombstone"
	"github.com/duramendb/duramen/internal/errkind"
)

func (w *world) Querier(
	_ string, blocks []manifest.Block, _ *tombstone.Set, mint, maxt int64,
) (storage.Querier, error) {
	all := samples{}
	for _, b := range blocks {
		found, ok := w.blocks[b.ULID]
		require.True(w.t, ok)
		maps.Copy(all, found.within(mint, maxt))
	}
	return &blockQuerier{all: all}, nil
}

func (w *world) ChunkQuerier(
	id string, blocks []manifest.Block, hidden *tombstone.Set, mint, maxt int64,
) (storage.ChunkQuerier, error) {
	q, err := w.Querier(id, blocks, hidden, mint, maxt)
	return blockChunks{q.(*blockQuerier)}, err
}

func (w *world) Known(string) *manifest.Manifest { return w.known }

func (*world) Delete(context.Context, string, manifest.Deletion) (manifest.Deletion, error) {
	return manifest.Deletion{}, errors.New("nothing is deleted here")
}
func (*world) CancelDeletion(context.Context, string, uint64) error     { return nil }
func (*world) HastenDeletions(context.Context, string, ...uint64) error { return nil }

func (w *world) Unlisted(context.Context, string) (ulid.ULID, error) { return ulid.ULID{}, nil }

func (w *world) Current(context.Context, string) (*manifest.Manifest, error) { return w.known, nil }

func (w *world) Refresh(context.Context, string) (*manifest.Manifest, error) {
	if w.bucketAway {
		return nil, errkind.New(errkind.Unavailable, "bucket in Hamburg: connection refused")
	}
	w.known = w.newest
	return w.known, nil
}

type blockQuerier struct{ all samples }

func (q *blockQuerier) Select(
	context.Context, bool, *storage.SelectHints, ...*labels.Matcher,
) storage.SeriesSet {
	return &blockSet{left: q.all.series()}
}

func (q *blockQuerier) LabelValues(
	_ context.Context, name string, _ *storage.LabelHints, _ ...*labels.Matcher,
) (out []string, _ annotations.Annotations, _ error) {
	for _, s := range q.all.series() {
		out = append(out, s.Labels().Get(name))
	}
	slices.Sort(out)
	return slices.Compact(out), nil, nil
}

func (q *blockQuerier) LabelNames(
	context.Context, *storage.LabelHints, ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}
func (q *blockQuerier) Close() error { return nil }

type blockChunks struct{ *blockQuerier }

func (q blockChunks) Select(
	ctx context.Context, sorted bool, h *storage.SelectHints, m ...*labels.Matcher,
) storage.ChunkSeriesSet {
	return storage.NewSeriesSetToChunkSet(q.blockQuerier.Select(ctx, sorted, h, m...))
}

type blockSet struct {
	left []storage.Series
	at   storage.Series
}

func (s *blockSet) Next() bool {
	if len(s.left) == 0 {
		return false
	}
	s.at, s.left = s.left[0], s.left[1:]
	return true
}
func (s *blockSet) At() storage.Series                { return s.at }
func (s *blockSet) Err() error                        { return nil }
func (s *blockSet) Warnings() annotations.Annotations { return nil }
