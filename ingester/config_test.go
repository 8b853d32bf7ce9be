package ingester

import (
	"flag"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestConfigDefaultsAreValid(t *testing.T) {
	var c Config
	f := flag.NewFlagSet("", flag.ContinueOnError)
	c.RegisterFlags(f)
	require.NoError(t, c.Validate())
	require.NoError(t, f.Parse([]string{"-ingester.wal-sync", "commit"}))
	require.Equal(t, SyncCommit, c.WALSync)
}

func TestConfigNamesWhatIsWrong(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"ingester.wal-sync":        func(c *Config) { c.WALSync = "sometimes" },
		"ingester.wal-compression": func(c *Config) { c.WALCompression = "gzip" },
		"ingester.idle-timeout":    func(c *Config) { c.IdleTimeout = time.Second },
		"ingester.block-retention": func(c *Config) { c.BlockRetention = time.Hour },
		"ingester.ship-interval":   func(c *Config) { c.ShipInterval = 0 },
	} {
		var c Config
		c.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
		spoil(&c)
		require.ErrorContains(t, c.Validate(), name)
	}
}

func TestTSDBOptions(t *testing.T) {
	var c Config
	c.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
	o := c.tsdbOptions(3*time.Hour, 500, nil, nil)
	require.Zero(t, o.RetentionDuration)
	require.Zero(t, o.MaxBytes)
	require.Equal(t, o.MinBlockDuration, o.MaxBlockDuration)
	require.False(t, o.EnableOverlappingCompaction, "merging blocks is the compactor's")
	require.False(t, o.IsolationDisabled)
	require.True(t, o.EnableSharding)
	require.Equal(t, 64<<10, o.HeadChunksWriteBufferSize)
	require.Equal(t, (3 * time.Hour).Milliseconds(), o.OutOfOrderTimeWindow)
	require.False(t, o.EnableSTStorage)
}

func TestRangeEnd(t *testing.T) {
	const width = int64(2 * time.Hour / time.Millisecond)
	for in, want := range map[int64]int64{
		0: width - 1, width - 1: width - 1, width: 2*width - 1, -1: -1, -width: -1, -width - 1: -width - 1,
	} {
		require.Equal(t, want, rangeEnd(in), "%d", in)
	}
}
