package block

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/errkind"
)

const (
	stockMeta = `{
	"ulid": "01JB2X0000000000000000000A",
	"minTime": 1700000000000,
	"maxTime": 1700007200000,
	"stats": {"numSamples": 100, "numFloatSamples": 100, "numSeries": 2, "numChunks": 3},
	"version": 1,
	"compaction": {"level": 1, "sources": ["01JB2X0000000000000000000A"], "hints": ["from-out-of-order"]}
}`
	// foreignMeta is as Thanos and Cortex write it, with fields that are unknown here at several depths.
	foreignMeta = `{
	"ulid": "01JB2X0000000000000000000B",
	"minTime": 1700000000000,
	"maxTime": 1700086400000,
	"stats": {"numSamples": 9007199254740993, "numSeries": 2, "numChunks": 3, "numFutureThings": 9007199254740993},
	"compaction": {"level": 3, "sources": ["01JB2X0000000000000000000A"],
		"parents": [{"ulid": "01JB2X0000000000000000000A", "minTime": 0, "maxTime": 1}], "note": "kept"},
	"version": 1,
	"thanos": {
		"version": 1,
		"labels": {"__org_id__": "acme", "__compactor_shard_id__": "1_of_4"},
		"downsample": {"resolution": 300000},
		"source": "compactor",
		"segment_files": ["000001"],
		"files": [{"rel_path": "chunks/000001", "size_bytes": 10, "hash": {"hashFunc": "SHA256", "value": "ab"}},
			{"rel_path": "index", "size_bytes": 5}, {"rel_path": "meta.json"}],
		"index_stats": {"series_max_size": 64},
		"extensions": {"partition_info": {"id": 1}}
	},
	"cortex": {"partition": 7}
}`
)

func TestParseStockMeta(t *testing.T) {
	m, err := ParseMeta([]byte(stockMeta))
	require.NoError(t, err)
	require.Nil(t, m.Duramen)
	require.Nil(t, m.Thanos)
	b := m.ManifestBlock(7)
	require.Equal(t, ulid.MustParse("01JB2X0000000000000000000A"), b.ULID)
	require.EqualValues(t, 1700000000000, b.MinTime)
	require.EqualValues(t, 1700007200000, b.MaxTime)
	require.Equal(t, 1, b.Level)
	require.Equal(t, []ulid.ULID{b.ULID}, b.Sources)
	require.EqualValues(t, 2, b.Series)
	require.EqualValues(t, 100, b.Samples)
	require.EqualValues(t, 3, b.Chunks)
	require.EqualValues(t, 7, b.SizeBytes)
	require.True(t, b.OutOfOrder)
	require.Empty(t, b.Writer)
}

func TestUnknownFieldsSurvive(t *testing.T) {
	m, err := ParseMeta([]byte(foreignMeta))
	require.NoError(t, err)
	require.EqualValues(t, 300000, m.Thanos.Downsample.Resolution)
	data, err := m.Marshal()
	require.NoError(t, err)
	require.JSONEq(t, foreignMeta, string(data))
	require.Contains(t, string(data), `"numFutureThings": 9007199254740993`, "numbers keep their digits")

	m.Stats.NumSeries = 5
	m.Duramen = &Duramen{Writer: "compactor-0", Version: 1}
	m.Thanos.Files = nil
	data, err = m.Marshal()
	require.NoError(t, err)
	again, err := ParseMeta(data)
	require.NoError(t, err)
	require.EqualValues(t, 5, again.Stats.NumSeries, "a changed field is not restored from what was read")
	require.Nil(t, again.Thanos.Files, "nor is one that was taken away")
	require.Equal(t, m.Duramen, again.Duramen)
	require.Contains(t, string(data), `"partition": 7`)
	require.Contains(t, string(data), `"note": "kept"`)
}

// TestPeersReadOurMeta decodes what is written here with structs as the peers have them.
func TestPeersReadOurMeta(t *testing.T) {
	m, err := ParseMeta([]byte(stockMeta))
	require.NoError(t, err)
	m.Duramen = &Duramen{Writer: "ingester-0", Version: duramenVersion}
	m.Thanos = &Thanos{Version: thanosVersion, Source: sourceName, Files: []File{
		{Name: "chunks/000001", SizeBytes: 10}, {Name: "index", SizeBytes: 5}, {Name: "meta.json"},
	}}
	data, err := m.Marshal()
	require.NoError(t, err)

	var peer struct {
		tsdb.BlockMeta
		Thanos struct {
			Version    int               `json:"version,omitempty"`
			Labels     map[string]string `json:"labels"`
			Downsample struct {
				Resolution int64 `json:"resolution"`
			} `json:"downsample"`
			Source string `json:"source"`
			Files  []struct {
				RelPath   string `json:"rel_path"`
				SizeBytes int64  `json:"size_bytes,omitempty"`
			} `json:"files,omitempty"`
		} `json:"thanos"`
	}
	require.NoError(t, json.Unmarshal(data, &peer))
	require.Equal(t, m.BlockMeta, peer.BlockMeta)
	require.Equal(t, 1, peer.Thanos.Version)
	require.NotNil(t, peer.Thanos.Labels)
	require.Zero(t, peer.Thanos.Downsample.Resolution)
	require.Equal(t, "duramen", peer.Thanos.Source)
	require.Len(t, peer.Thanos.Files, 3)
	require.Equal(t, "chunks/000001", peer.Thanos.Files[0].RelPath)
	require.EqualValues(t, 10, peer.Thanos.Files[0].SizeBytes)
}

func TestParseMetaRefuses(t *testing.T) {
	for name, data := range map[string]string{
		"empty":            ``,
		"null":             `null`,
		"array":            `[]`,
		"cut":              stockMeta[:len(stockMeta)/2],
		"two values":       stockMeta + stockMeta,
		"no version":       `{"ulid": "01JB2X0000000000000000000A"}`,
		"future version":   `{"ulid": "01JB2X0000000000000000000A", "version": 2}`,
		"no ULID":          `{"version": 1}`,
		"bad ULID":         `{"ulid": "01JB2X", "version": 1}`,
		"times":            `{"ulid": "01JB2X0000000000000000000A", "version": 1, "minTime": 2, "maxTime": 1}`,
		"level":            `{"ulid": "01JB2X0000000000000000000A", "version": 1, "compaction": {"level": -1}}`,
		"file leads out":   `{"ulid": "01JB2X0000000000000000000A", "version": 1, "thanos": {"files": [{"rel_path": "../x"}]}}`,
		"file is absolute": `{"ulid": "01JB2X0000000000000000000A", "version": 1, "thanos": {"files": [{"rel_path": "/x"}]}}`,
		"file is negative": `{"ulid": "01JB2X0000000000000000000A", "version": 1, "thanos": {"files": [{"rel_path": "x", "size_bytes": -1}]}}`,
	} {
		_, err := ParseMeta([]byte(data))
		require.Error(t, err, name)
		require.Equal(t, errkind.Corrupt, errkind.Of(err), name)
	}
}

func TestReadMetaOfAFolder(t *testing.T) {
	dir := t.TempDir()
	_, err := ReadMeta(dir)
	require.ErrorIs(t, err, ErrNoMeta)
	require.NoError(t, os.WriteFile(filepath.Join(dir, MetaName), []byte(stockMeta), 0o600))
	m, err := ReadMeta(dir)
	require.NoError(t, err)
	require.Equal(t, "01JB2X0000000000000000000A", m.ULID.String())
}

func FuzzParseMeta(f *testing.F) {
	for _, seed := range []string{stockMeta, foreignMeta, `{}`, `null`, `{"ULID":"01JB2X0000000000000000000A","version":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseMeta(data)
		if err != nil {
			require.Equal(t, errkind.Corrupt, errkind.Of(err))
			return
		}
		written, err := m.Marshal()
		require.NoError(t, err)
		again, err := ParseMeta(written)
		require.NoError(t, err, "what was written can be read: %s", written)
		require.Equal(t, m.BlockMeta.ULID, again.BlockMeta.ULID)
		require.Equal(t, m.Stats, again.Stats)
		require.Equal(t, m.MinTime, again.MinTime)
		rewritten, err := again.Marshal()
		require.NoError(t, err)
		require.JSONEq(t, string(written), string(rewritten))
	})
}

func TestManifestBlockOfAPeer(t *testing.T) {
	m, err := ParseMeta([]byte(foreignMeta))
	require.NoError(t, err)
	b := m.ManifestBlock(7)
	require.Equal(t, "1_of_4", b.Shard)
	require.Nil(t, b.Labels)
	require.Equal(t, "acme", m.TenantLabel())
	require.EqualValues(t, 22, b.SizeBytes)

	delete(m.Thanos.Labels, "__compactor_shard_id__")
	m.Thanos.Labels["cluster"], m.Thanos.Labels["__ingester_id__"] = "eu", "ingester-1"
	b = m.ManifestBlock(7)
	require.Equal(t, map[string]string{"cluster": "eu"}, b.Labels)
	require.Empty(t, b.Shard, "of one partition nothing is missing")
	require.Len(t, m.Thanos.Labels, 3, "the section is left alone")

	m, err = ParseMeta([]byte(strings.Replace(foreignMeta, `{"id": 1}`, `{"partition_id": 1, "partition_count": 4}`, 1)))
	require.NoError(t, err)
	delete(m.Thanos.Labels, "__compactor_shard_id__")
	require.Equal(t, "partition 1 of 4", m.ManifestBlock(7).Shard)
}
