package block

import (
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"
)

// TestNewMetaSurvivesItsBytes: what a manifest has to know of a block is in the bytes of its meta.json.
func TestNewMetaSurvivesItsBytes(t *testing.T) {
	for _, shard := range []string{"", "2_of_4", "partition 1 of 3"} {
		d := Description{
			Stock:  tsdb.BlockMeta{ULID: ulid.MustNew(7, nil), MinTime: 1, MaxTime: 9},
			Writer: "compactor/a", Labels: map[string]string{"cluster": "x"}, Shard: shard,
			Files: []File{{Name: SegmentName(1), SizeBytes: 10}, {Name: IndexName, SizeBytes: 20}},
		}
		m, err := NewMeta(d)
		require.NoError(t, err)
		data, err := m.Marshal()
		require.NoError(t, err)
		again, err := ParseMeta(data)
		require.NoError(t, err)
		b := again.ManifestBlock(int64(len(data)))
		require.Equal(t, shard, b.Shard)
		require.Equal(t, d.Labels, b.Labels)
		require.Equal(t, "compactor/a", b.Writer)
		require.Equal(t, int64(30+len(data)), b.SizeBytes)
	}
	_, err := NewMeta(Description{Stock: tsdb.BlockMeta{ULID: ulid.MustNew(7, nil)}, Shard: "half"})
	require.ErrorContains(t, err, "half")
}
