package compaction

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// checkTools has Prometheus' own tool list, analyze and dump the block.
func (w *world) checkTools(b manifest.Block) {
	t := w.t
	t.Helper()
	dir := t.TempDir()
	from := filepath.Join(w.server.BucketDir(w.name), tenantID, b.ULID.String())
	require.NoError(t, os.CopyFS(filepath.Join(dir, b.ULID.String()), os.DirFS(from)))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "wal"), 0o750)) // dump wants one
	promtool := tool(t, "promtool")
	run := func(args ...string) string {
		var out, said bytes.Buffer
		cmd := exec.CommandContext(t.Context(), promtool, append([]string{"tsdb"}, args...)...)
		cmd.Stdout, cmd.Stderr = &out, &said
		require.NoError(t, cmd.Run(), "promtool tsdb %v: %s", args, &said)
		return out.String()
	}
	require.Contains(t, run("list", dir), b.ULID.String())
	require.Contains(t, run("analyze", dir, b.ULID.String()), fmt.Sprintf("Total Series: %d", b.Series))
	require.EqualValues(t, b.Samples, lines(run("dump", dir)), "each sample is a line")
}

// checkPeerFiles compares what readers of Thanos, Cortex and Mimir are told with what those publish of their formats: no field
// is unknown, and none is missing. It waits until the files are there.
func (w *world) checkPeerFiles(b manifest.Block) {
	t := w.t
	t.Helper()
	m, err := w.owner.Refresh(t.Context(), tenantID)
	require.NoError(t, err)
	var index struct {
		Version int `json:"version"`
		Blocks  []struct {
			ID               ulid.ULID `json:"block_id"`
			MinTime          int64     `json:"min_time"`
			MaxTime          int64     `json:"max_time"`
			SegmentsFormat   string    `json:"segments_format,omitempty"`
			SegmentsNum      int       `json:"segments_num,omitempty"`
			UploadedAt       int64     `json:"uploaded_at"`
			Parquet          any       `json:"parquet,omitempty"`
			Source           string    `json:"source,omitempty"`
			CompactionLevel  int       `json:"compaction_level,omitempty"`
			OutOfOrder       bool      `json:"out_of_order,omitempty"`
			CompactorShardID string    `json:"compactor_shard_id,omitempty"`
		} `json:"blocks"`
		Deletions []struct {
			ID   ulid.ULID `json:"block_id"`
			Time int64     `json:"deletion_time"`
		} `json:"block_deletion_marks"`
		UpdatedAt int64 `json:"updated_at"`
	}
	require.Eventually(t, func() bool {
		index.Blocks, index.Deletions = nil, nil
		data := w.object(t, tenantID+"/bucket-index.json.gz", true)
		return data != nil && strictly(t, data, &index) && len(index.Blocks) == 1 && index.Blocks[0].ID == b.ULID
	}, patience, 100*time.Millisecond, "the index has the block that was made, alone")
	require.Equal(t, 1, index.Version)
	require.Equal(t, []int64{b.MinTime, b.MaxTime}, []int64{index.Blocks[0].MinTime, index.Blocks[0].MaxTime})
	require.InDelta(t, time.Now().Unix(), index.Blocks[0].UploadedAt, patience.Seconds())
	require.InDelta(t, time.Now().Unix(), index.UpdatedAt, patience.Seconds())
	require.NotEmpty(t, m.Removed)
	var meta struct {
		Thanos struct {
			Version    int               `json:"version,omitempty"`
			Labels     map[string]string `json:"labels"`
			Downsample struct {
				Resolution int64 `json:"resolution"`
			} `json:"downsample"`
			Source       string   `json:"source"`
			SegmentFiles []string `json:"segment_files,omitempty"`
			Files        []struct {
				Name string `json:"rel_path"`
				Size int64  `json:"size_bytes,omitempty"`
			} `json:"files,omitempty"`
		} `json:"thanos"`
	}
	prefix := tenantID + "/" + b.ULID.String() + "/"
	require.NoError(t, json.Unmarshal(w.object(t, prefix+"meta.json", false), &meta))
	require.Equal(t, 1, meta.Thanos.Version)
	require.Zero(t, meta.Thanos.Downsample.Resolution)
	require.NotNil(t, meta.Thanos.Labels)
	require.NotEmpty(t, meta.Thanos.Source)
	require.NotEmpty(t, meta.Thanos.Files)
	for _, f := range meta.Thanos.Files {
		if f.Name != "meta.json" {
			require.Len(t, w.object(t, prefix+f.Name, false), int(f.Size), f.Name)
		}
	}
}

// object returns an object, nil when there is none.
func (w *world) object(t *testing.T, key string, zipped bool) []byte {
	t.Helper()
	body, err := w.bkt.Get(t.Context(), key)
	if err != nil {
		require.ErrorIs(t, err, bucket.ErrNotFound)
		return nil
	}
	defer body.Close()
	var r io.Reader = body
	if zipped {
		r, err = gzip.NewReader(body)
		require.NoError(t, err)
	}
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	return data
}

// strictly decodes, and refuses what into does not name.
func strictly(t *testing.T, data []byte, into any) bool {
	t.Helper()
	var fields map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(data, &fields))
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	require.NoError(t, dec.Decode(into), "%s", data)
	return true
}
