package oracle

import (
	"testing"

	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/reader"
)

// store is what is tested.
type store interface {
	Querier(tenant string, blocks []manifest.Block, mint, maxt int64) (storage.Querier, error)
	ChunkQuerier(tenant string, blocks []manifest.Block, mint, maxt int64) (storage.ChunkQuerier, error)
}

// newStore returns a store over a bucket.
func newStore(t testing.TB, bkt bucket.Bucket) store {
	t.Helper()
	r, err := reader.New(reader.Config{IndexCacheBytes: 1 << 20}, bkt, nopLog, nil)
	require.NoError(t, err)
	return r
}
