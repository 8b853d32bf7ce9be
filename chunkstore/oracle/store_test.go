package oracle

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/budget"
	"github.com/duramendb/duramen/chunkstore/localstore"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// store is what is tested.
type store interface {
	Querier(tenant string, blocks []manifest.Block, mint, maxt int64) (storage.Querier, error)
	ChunkQuerier(tenant string, blocks []manifest.Block, mint, maxt int64) (storage.ChunkQuerier, error)
}

type noLimits struct{}

func (noLimits) MaxFetchedSeriesPerQuery(string) int       { return 0 }
func (noLimits) MaxFetchedChunkBytesPerQuery(string) int64 { return 0 }

// newStore returns a store over a bucket.
func newStore(t testing.TB, bkt bucket.Bucket) store {
	t.Helper()
	cfg := localstore.Config{Memory: budget.Config{LimitBytes: 1 << 30, DirectoriesShare: 0.05, PagesShare: 0.1, ChunksShare: 0.25, QueryShare: 0.25}}
	s, err := localstore.Open(cfg, t.TempDir(), bkt, nil, noLimits{}, time.Now, nopLog, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s.Reader
}
