package migration

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// blockFolder is a block on the local disk, with its meta.json as it is.
type blockFolder struct {
	dir, id string
	meta    map[string]any
}

// blocksOf makes blocks of sources with promtool, in the order of their time.
func blocksOf(t *testing.T, dir string, of []source) (found []blockFolder) {
	t.Helper()
	text := filepath.Join(t.TempDir(), "samples.txt")
	require.NoError(t, os.WriteFile(text, []byte(openMetrics(of)), 0o600))
	run(t, tool(t, "promtool"), "tsdb", "create-blocks-from", "openmetrics", text, dir)
	metas, err := filepath.Glob(filepath.Join(dir, "*", "meta.json"))
	require.NoError(t, err)
	for _, name := range metas {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		b := blockFolder{dir: filepath.Dir(name), id: filepath.Base(filepath.Dir(name))}
		require.NoError(t, json.Unmarshal(data, &b.meta))
		found = append(found, b)
	}
	slices.SortFunc(found, func(a, b blockFolder) int { return int(a.meta["minTime"].(float64) - b.meta["minTime"].(float64)) })
	return found
}

// put copies the block into the folder of a tenant with what a peer adds to its meta.json.
func (b blockFolder) put(t *testing.T, tenant string, thanos, compaction map[string]any) {
	t.Helper()
	to := filepath.Join(tenant, b.id)
	require.NoError(t, os.CopyFS(to, os.DirFS(b.dir)))
	b.meta["thanos"] = thanos
	maps.Copy(b.meta["compaction"].(map[string]any), compaction)
	data, err := json.Marshal(b.meta)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(to, "meta.json"), data, 0o600))
}

// files lists the objects of the block as its section of meta.json does.
func (b blockFolder) files(t *testing.T) (files []map[string]any) {
	t.Helper()
	for _, name := range []string{"chunks/000001", "index"} {
		info, err := os.Stat(filepath.Join(b.dir, filepath.FromSlash(name)))
		require.NoError(t, err)
		files = append(files, map[string]any{"rel_path": name, "size_bytes": info.Size()})
	}
	return append(files, map[string]any{"rel_path": "meta.json"})
}

// mimir fills the folder of a tenant as Mimir's documents describe it: each block of two hours was split in two by series,
// the blocks that were split are marked for deletion, one block must not be compacted, and an index header lies beside it.
// all are the blocks before they were split.
func mimir(t *testing.T, tenant string, all []blockFolder) {
	t.Helper()
	halves := [2][]source{}
	for i, s := range sources() {
		halves[i%2] = append(halves[i%2], s)
	}
	for i, of := range halves {
		parts := blocksOf(t, t.TempDir(), of)
		require.Len(t, parts, len(all))
		for n, b := range parts {
			b.put(t, tenant, map[string]any{
				"version": 1, "source": "compactor", "files": b.files(t), "downsample": map[string]any{"resolution": 0},
				"labels": map[string]any{"__compactor_shard_id__": fmt.Sprintf("%d_of_2", i+1)},
			}, map[string]any{
				"level": 2, "sources": []string{all[n].id},
				"parents": []map[string]any{{"ulid": all[n].id, "minTime": all[n].meta["minTime"], "maxTime": all[n].meta["maxTime"]}},
			})
			require.NoError(t, os.WriteFile(filepath.Join(tenant, b.id, "sparse-index-header"), []byte("x"), 0o600))
			if n == 0 {
				mark(t, tenant, b.id, "no-compact-mark.json", map[string]any{
					"id": b.id, "version": 1, "no_compact_time": time.Now().Unix(), "reason": "manual",
				})
			}
		}
	}
	for _, b := range all {
		b.put(t, tenant, map[string]any{
			"version": 1, "source": "ingester", "files": b.files(t), "labels": map[string]any{"__org_id__": filepath.Base(tenant)},
		}, nil)
		mark(t, tenant, b.id, "deletion-mark.json", map[string]any{
			"id": b.id, "version": 1, "deletion_time": time.Now().Unix(), "details": "source of compacted block",
		})
	}
}

// mark writes a mark into the block's folder and into that of all marks.
func mark(t *testing.T, tenant, id, name string, text map[string]any) {
	t.Helper()
	data, err := json.Marshal(text)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Join(tenant, "markers"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(tenant, id, name), data, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(tenant, "markers", id+"-"+name), data, 0o600))
}
