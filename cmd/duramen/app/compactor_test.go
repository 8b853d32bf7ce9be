package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/compactor"
)

// TestBlocksAreCompactedUnderQueries: two replicas of a day that somebody has put into the bucket are taken in and become
// one block, and each query meanwhile has the same answer.
func TestBlocksAreCompactedUnderQueries(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bucket")
	bkt, err := bucket.NewFilesystem(dir)
	require.NoError(t, err)
	day := time.Now().UTC().Truncate(24 * time.Hour).Add(-72 * time.Hour)
	for slot := range 12 {
		putReplicas(t, bkt, day.Add(time.Duration(slot)*2*time.Hour), 2, 3)
	}
	n := startNode(t, testConfig(t.TempDir(), "-bucket.filesystem.directory="+dir, "-manifest.reconcile-interval=1s"))
	var status compactor.TenantStatus
	for status.Blocks != 1 || status.JobsTotal > 0 {
		res := n.do("POST", "/compactor/run?tenant=acme&wait=true", nil)
		if res.status == http.StatusNotFound { // the reconciler has not seen them yet
			time.Sleep(50 * time.Millisecond)
			continue
		}
		require.Equal(t, http.StatusOK, res.status, res.body)
		require.NoError(t, json.Unmarshal([]byte(res.body), &status))
		require.Empty(t, status.LastError)
		require.Equal(t, fmt.Sprint(3*1440), n.query("acme", "sum(count_over_time(up[1d]))", day.Add(24*time.Hour-time.Millisecond)))
	}
	res := n.do("GET", "/compactor?format=json", nil)
	require.Contains(t, res.body, `"tenant":"acme"`)
	require.Contains(t, n.do("GET", "/metrics", nil).body, "duramen_compactor_oldest_uncompacted_slot_age_seconds 0\n")
}

// putReplicas puts equal blocks of a slot, with a sample each minute.
func putReplicas(t *testing.T, bkt bucket.Bucket, slot time.Time, replicas, series int) {
	t.Helper()
	mint, all := slot.UnixMilli(), []blockgen.Series(nil)
	for i := range series {
		c := chunkenc.NewXORChunk()
		app, err := c.Appender()
		require.NoError(t, err)
		for k := range int64(120) {
			app.Append(0, mint+k*60_000, float64(i))
		}
		all = append(all, blockgen.Series{
			Labels: labels.FromStrings("__name__", "up", "instance", fmt.Sprint(i)),
			Chunks: []blockgen.Chunk{{
				MinTime: mint, MaxTime: mint + 119*60_000, Encoding: c.Encoding(), Data: c.Bytes(), Samples: 120,
			}},
		})
	}
	for i := range replicas {
		b, err := blockgen.Build(blockgen.Options{
			ULID: blockgen.ULID(mint+7_200_000, uint64(i)), MinTime: mint, MaxTime: mint + 7_200_000, Sidecar: true,
		}, all)
		require.NoError(t, err)
		require.NoError(t, b.Put(t.Context(), bkt, "acme"))
	}
}
