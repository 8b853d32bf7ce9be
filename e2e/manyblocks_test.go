package e2e

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/internal/procstat"
)

var (
	tenantsFlag = flag.Int("e2e.tenants", 10, "tenants of the story with many blocks")
	blocksFlag  = flag.Int("e2e.blocks", 50, "blocks that each of them has")
)

// limitBytes is the memory limit of the story's processes, budgetShare the part of it that caches and buffers may take by
// default.
const (
	limitBytes  = 1 << 30
	budgetShare = 0.05 + 0.10 + 0.25
)

// TestManyBlocks: a store-gateway over many blocks of many tenants is ready without asking the bucket anything, again after
// SIGKILL, answers queries over all of them, and keeps within its memory. Each block is real: all tenants share the bytes
// of those of the first. With -e2e.tenants=1000 -e2e.blocks=100, `make manyblocks`, times count, too.
func TestManyBlocks(t *testing.T) {
	tenants, days := *tenantsFlag, *blocksFlag
	dir := filepath.Join(t.TempDir(), "bucket")
	grid := blockgen.Grid{
		Seed: random(t).Uint64(), Metrics: 3, Series: 20, Interval: 3_600_000,
		Start: time.Now().Add(-time.Duration(days+2) * 24 * time.Hour).Truncate(24 * time.Hour).UnixMilli(),
	}
	begin := time.Now()
	fillBucket(t, dir, grid, tenants, days)
	t.Logf("%d blocks of %d tenants made in %s", tenants*days, tenants, time.Since(begin).Round(time.Millisecond))

	memory := fmt.Sprintf("-chunkstore.memory.limit-bytes=%d", limitBytes)
	gateway, address := startGateway(t, dir, memory)
	requireNothingAsked(t, gateway)
	n := startNode(t, t.TempDir(), "-bucket.filesystem.directory="+dir, "-querier.store-gateway-addresses="+address)

	half := tenants / 2
	askTenants(t, n, grid, days, 0, half)
	gateway.Kill()
	begin = time.Now()
	require.NoError(t, gateway.start())
	ready := time.Since(begin)
	t.Logf("ready %s after SIGKILL", ready.Round(time.Millisecond))
	if tenants >= 1000 {
		require.Less(t, ready, time.Second)
	}
	requireNothingAsked(t, gateway)

	for from := 0; from < tenants; from += max(half, 1) {
		begin = time.Now()
		askTenants(t, n, grid, days, from, min(from+max(half, 1), tenants))
		rss, err := procstat.RSS(gateway.PID())
		require.NoError(t, err)
		t.Logf("queries up to tenant %d in %s, resident memory %d MiB", from+half, time.Since(begin).Round(time.Millisecond), rss>>20)
	}
	c := client.Duramen(gateway.URL, "")
	defer c.CloseIdle()
	// Metrics of operations have the kind of object: a gateway never looks at a manifest.
	_, err := c.Metric(t.Context(), "duramen_bucket_operations_total", `kind="manifest"`)
	require.ErrorContains(t, err, "no metric")
	peak, err := gateway.PeakRSS()
	require.NoError(t, err)
	limit := float64(limitBytes)
	budgets := int64(limit * budgetShare)
	t.Logf("at most %d MiB resident, budgets of %d MiB", peak>>20, budgets>>20)
	require.Less(t, peak, budgets+budgets/5)
}

// fillBucket makes the blocks of the first tenant and lists them in the manifests of all. The folders of the others are
// links.
func fillBucket(t *testing.T, dir string, grid blockgen.Grid, tenants, days int) {
	t.Helper()
	first := filepath.Join(dir, tenantName(0))
	require.NoError(t, os.MkdirAll(first, 0o755))
	blocks, err := grid.Write(first, days)
	require.NoError(t, err)
	entries := make([]manifest.Block, len(blocks))
	for i, b := range blocks {
		entries[i] = b.Entry
	}
	bkt, err := bucket.NewFilesystem(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, bkt.Close()) }()
	var group errgroup.Group
	group.SetLimit(16)
	for i := range tenants {
		group.Go(func() error {
			owner := manifest.NewOwner(bkt, time.Now, slog.New(slog.DiscardHandler), nil)
			if _, err := owner.Swap(t.Context(), tenantName(i), manifest.Change{Add: entries}); err != nil || i == 0 {
				return err
			}
			for _, b := range entries {
				id := b.ULID.String()
				if err := os.Symlink(filepath.Join("..", tenantName(0), id), filepath.Join(dir, tenantName(i), id)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
}

func tenantName(i int) string { return fmt.Sprintf("tenant-%04d", i) }

// requireNothingAsked: since its start the process has sent no operation to the bucket.
func requireNothingAsked(t *testing.T, n *node) {
	t.Helper()
	c := client.Duramen(n.URL, "")
	defer c.CloseIdle()
	_, err := c.Metric(t.Context(), "duramen_bucket_operations_total")
	require.ErrorContains(t, err, "no metric")
}

// askTenants counts all samples of one metric of each tenant.
func askTenants(t *testing.T, n *node, grid blockgen.Grid, days, from, to int) {
	t.Helper()
	_, end := grid.Range(days - 1)
	var group errgroup.Group
	group.SetLimit(4)
	for i := from; i < to; i++ {
		group.Go(func() error {
			c := client.Duramen(n.URL, tenantName(i))
			defer c.CloseIdle()
			var result []struct{ Value client.Point }
			expr := fmt.Sprintf("sum(count_over_time(%s[%dd]))", grid.Metric(i%grid.Metrics), days+1)
			if err := c.Query(t.Context(), expr, end, &result); err != nil {
				return fmt.Errorf("tenant %d: %w", i, err)
			}
			if want := float64(grid.Series * grid.PerDay() * days); len(result) != 1 || result[0].Value.V != want {
				return fmt.Errorf("tenant %d: got %v, want %g samples", i, result, want)
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
}
