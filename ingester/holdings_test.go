package ingester

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// TestHoldings follows the gauges through a sample's life: in memory, in a block that cannot be shipped, in the bucket.
func TestHoldings(t *testing.T) {
	f := newFixture(t)
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(f.held)
	gauges := func() map[string]float64 {
		families, err := reg.Gather()
		require.NoError(t, err)
		out := map[string]float64{}
		for _, m := range families {
			out[m.GetName()[len("duramen_ingester_"):]] = m.GetMetric()[0].GetGauge().GetValue()
		}
		return out
	}
	f.held.lookAtLogs()
	empty := gauges()
	for _, name := range []string{
		"series", "longest_head_seconds", "local_blocks", "unshipped_blocks", "oldest_unshipped_block_age_seconds", "wal_bytes",
	} {
		require.Contains(t, empty, name)
		require.Zero(t, empty[name], name)
	}
	require.Positive(t, empty["volume_free_bytes"])
	require.GreaterOrEqual(t, empty["volume_size_bytes"], empty["volume_free_bytes"])
	require.EqualValues(t, 1, empty["volume_min_free_bytes"])

	t0 := ms(testStart)
	for i := range 10 {
		f.push(new(batch).floats(named(fmt.Sprintf("m%d", i)), 1, t0-60_000, t0))
	}
	f.held.lookAtLogs()
	got := gauges()
	require.EqualValues(t, 10, got["series"])
	require.EqualValues(t, 60, got["longest_head_seconds"])
	require.Positive(t, got["wal_bytes"])

	f.catalog.fail(errors.New("away"))
	_, err := f.Flush(context.Background(), "a", true)
	require.Error(t, err)
	f.clock.advance(max(0, time.Since(testStart)) + time.Hour) // a block is dated by the real clock
	got = gauges()
	require.EqualValues(t, 2, got["local_blocks"], "before and after the border")
	require.EqualValues(t, 2, got["unshipped_blocks"])
	require.Positive(t, got["oldest_unshipped_block_age_seconds"])

	f.catalog.fail(nil)
	_, err = f.Flush(context.Background(), "a", true)
	require.NoError(t, err)
	got = gauges()
	require.EqualValues(t, 2, got["local_blocks"])
	require.Zero(t, got["unshipped_blocks"])
	require.Zero(t, got["oldest_unshipped_block_age_seconds"])

	f.free.stat = func(string) (uint64, uint64, error) { return 0, 0, errors.New("no volume") }
	require.Equal(t, 6, testutil.CollectAndCount(f.held), "what is known is said")
}

func (c *testCatalog) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}
