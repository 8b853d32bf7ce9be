// Package reader owns the reading of blocks in the bucket: which pages and chunks answer a query, when they are fetched,
// and how the blocks' series become one answer. It refuses to answer in part: a block that it was asked for is read, or
// the query gets an error that names tenant, block and object. Read source.go first, then local.go for the bucket's side
// and package querier for how the blocks of a manifest version meet recent data.
package reader

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/storage"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tombstone"
)

// Reader answers queries from the blocks of a Source, merged. It is safe for concurrent use and runs no goroutine of its
// own.
type Reader struct {
	source  Source
	log     *slog.Logger
	metrics *mergeMetrics
}

// New returns a Reader of the source.
func New(cfg Config, source Source, log *slog.Logger, reg prometheus.Registerer) (*Reader, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return &Reader{source: source, log: log, metrics: newMergeMetrics(reg)}, nil
}

// Querier returns a querier over exactly the given blocks of the tenant, for samples with mint ≤ t ≤ maxt in
// milliseconds. Blocks outside the range are not touched, the others are read by the calls that need them, with those
// calls' context. The querier must be closed; it is for one goroutine.
//
// Of each block the samples are left out that those of the hidden deletions mean which concern it; nil hides nothing. They
// have no part in a merge with other blocks. Lists of series and labels are not touched by it.
//
// Errors, from Select by way of the set or its iterators, are those of Session.
func (r *Reader) Querier(
	tenant string, blocks []manifest.Block, hidden *tombstone.Set, mint, maxt int64,
) (storage.Querier, error) {
	return &querier{r.view(tenant, blocks, hidden, mint, maxt)}, nil
}

// ChunkQuerier is Querier for encoded chunks.
func (r *Reader) ChunkQuerier(
	tenant string, blocks []manifest.Block, hidden *tombstone.Set, mint, maxt int64,
) (storage.ChunkQuerier, error) {
	return &chunkQuerier{r.view(tenant, blocks, hidden, mint, maxt)}, nil
}
