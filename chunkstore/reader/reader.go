// Package reader owns the reading of blocks in the bucket: whole indexes kept in memory within a budget, chunks fetched
// by ranges. It refuses to answer in part: a block that it was asked for is read, or the query gets an error that names
// tenant, block and object. Read package querier next for how the blocks of a manifest version meet recent data.
package reader

import (
	"flag"
	"fmt"
	"log/slog"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/storage"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// defaultIndexCacheBytes holds the indexes of about ten merged 2 h blocks of 100,000 series.
const defaultIndexCacheBytes = 256 << 20

// Config holds what an operator may set.
type Config struct {
	// IndexCacheBytes is the memory for indexes of blocks that no query uses at the moment.
	IndexCacheBytes int64 `yaml:"index_cache_bytes"`
}

// RegisterFlags adds the settings to f with their defaults.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	f.Int64Var(&c.IndexCacheBytes, "chunkstore.index-cache-bytes", defaultIndexCacheBytes,
		"Memory in bytes for indexes of blocks in the bucket. Indexes that running queries use count too, and may exceed it.")
}

// Validate says which setting is wrong and what would be right.
func (c *Config) Validate() error {
	if c.IndexCacheBytes < 0 {
		return fmt.Errorf("chunkstore.index_cache_bytes is %d: set 0 (no cache) or more bytes", c.IndexCacheBytes)
	}
	return nil
}

// Reader answers queries from blocks in the bucket. It is safe for concurrent use and runs no goroutine of its own.
type Reader struct {
	bkt     bucket.Bucket
	log     *slog.Logger
	metrics *metrics
	indexes *indexCache
}

// New checks cfg and returns a Reader of bkt. It reads nothing yet.
func New(cfg Config, bkt bucket.Bucket, log *slog.Logger, reg prometheus.Registerer) (*Reader, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := newMetrics(reg)
	return &Reader{bkt: bkt, log: log, metrics: m, indexes: newIndexCache(cfg.IndexCacheBytes, m)}, nil
}

// Querier returns a querier over exactly the given blocks of the tenant, for samples with mint ≤ t ≤ maxt in
// milliseconds. Blocks outside the range are not touched, the others are opened by the first call that needs them, with
// that call's context. The querier must be closed; it is for one goroutine.
//
// Errors, from Select by way of the set or its iterators, are of kind Corrupt when an object is missing or damaged, and
// Unavailable when the bucket fails.
func (r *Reader) Querier(tenant string, blocks []manifest.Block, mint, maxt int64) (storage.Querier, error) {
	return &querier{r.view(tenant, blocks, mint, maxt)}, nil
}

// ChunkQuerier is Querier for encoded chunks.
func (r *Reader) ChunkQuerier(tenant string, blocks []manifest.Block, mint, maxt int64) (storage.ChunkQuerier, error) {
	return &chunkQuerier{r.view(tenant, blocks, mint, maxt)}, nil
}

// Close drops the cached indexes. Queriers that are open stay usable.
func (r *Reader) Close() error {
	r.indexes.purge()
	return nil
}

// indexKey and segmentKey name the objects of a block.
func indexKey(tenant string, id ulid.ULID) string { return block.Key(tenant, id, block.IndexName) }

func segmentKey(tenant string, id ulid.ULID, segment int) string {
	return block.Key(tenant, id, block.SegmentName(segment+1)) // references count segments from 0
}
