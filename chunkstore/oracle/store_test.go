package oracle

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/budget"
	"github.com/duramendb/duramen/chunkstore/cache"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/reader"
	"github.com/duramendb/duramen/chunkstore/sidecar"
	"github.com/duramendb/duramen/chunkstore/tombstone"
)

// store is what is tested.
type store interface {
	Querier(tenant string, blocks []manifest.Block, hidden *tombstone.Set, mint, maxt int64) (storage.Querier, error)
	ChunkQuerier(tenant string, blocks []manifest.Block, hidden *tombstone.Set, mint, maxt int64) (storage.ChunkQuerier, error)
}

// setup is how a store is made; the zero value has small caches in memory and none on disk.
type setup struct {
	// noMemory leaves nothing cached in memory, small gives little memory for chunks.
	noMemory, small bool
	// disk is the folder of a disk cache; empty means none.
	disk string
}

type noLimits struct{}

func (noLimits) MaxFetchedSeriesPerQuery(string) int       { return 0 }
func (noLimits) MaxFetchedChunkBytesPerQuery(string) int64 { return 0 }

// newStore returns a store over a bucket and what ends it.
func newStore(t testing.TB, bkt bucket.Bucket, s setup) (st store, closeStore func()) {
	t.Helper()
	sidecars := sidecar.New(sidecar.Config{Dir: t.TempDir()}, bkt, nil, time.Now, nopLog, nil)
	cfg := reader.Config{ParallelBlocks: 4, DirectoryCacheBytes: 1 << 20, PageCacheBytes: 1 << 20}
	if s.noMemory {
		cfg.DirectoryCacheBytes, cfg.PageCacheBytes = 0, 0
	}
	memory := int64(16 << 20)
	if s.small {
		memory = 1 << 20
	}
	var disk *cache.Disk
	if s.disk != "" {
		var err error
		disk, err = cache.OpenDisk(cache.DiskConfig{Dir: s.disk, MaxBytes: 32 << 20}, nopLog, nil)
		require.NoError(t, err)
	}
	local, err := reader.NewLocal(cfg, sidecars.Bucket(), sidecars, disk, budget.NewPool(budget.PoolConfig{Bytes: memory}, nil),
		noLimits{}, nopLog, nil)
	require.NoError(t, err)
	r, err := reader.New(cfg, local, nopLog, nil)
	require.NoError(t, err)
	return r, func() {
		require.NoError(t, local.Close())
		if disk != nil {
			require.NoError(t, disk.Close())
		}
		require.NoError(t, sidecars.Close())
	}
}

var _ = context.Background
