package salvage

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

var keep = Config{Keep: DefaultKeep}

func (w *world) owner(t testing.TB) *manifest.Owner {
	t.Helper()
	o := manifest.NewOwner(w.bkt, func() time.Time { return time.UnixMilli(1_700_000_000_000) }, slog.New(slog.DiscardHandler), nil)
	_, err := o.Add(t.Context(), tenant, w.block.Entry)
	require.NoError(t, err)
	return o
}

func (w *world) object(t testing.TB, key string) []byte {
	t.Helper()
	body, err := w.bkt.Get(t.Context(), key)
	require.NoError(t, err)
	data, err := io.ReadAll(body)
	require.NoError(t, err)
	require.NoError(t, body.Close())
	return data
}

// inOrder checks at the swap that all that has to be there before is there.
type inOrder struct {
	*manifest.Owner

	t testing.TB
	w *world
}

func (o inOrder) Swap(ctx context.Context, tenantID string, c manifest.Change) (uint64, error) {
	id := o.w.block.Entry.ULID
	var r Report
	require.NoError(o.t, json.Unmarshal(o.w.object(o.t, ReportKey(tenant, id)), &r))
	for _, key := range []string{
		block.Key(tenant, id, "no-compact-mark.json"), tenant + "/markers/" + id.String() + "-no-compact-mark.json",
	} {
		var mark map[string]any
		require.NoError(o.t, json.Unmarshal(o.w.object(o.t, key), &mark))
		require.Equal(o.t, id.String(), mark["id"])
		require.InEpsilon(o.t, 1, mark["version"], 0)
		require.NotEmpty(o.t, mark["reason"])
		require.NotZero(o.t, mark["no_compact_time"])
	}
	m, err := o.Current(ctx, tenantID)
	require.NoError(o.t, err)
	require.Len(o.t, m.Lost, len(r.Ranges))
	return o.Owner.Swap(ctx, tenantID, c)
}

func TestCommit(t *testing.T) {
	w := newWorld(t, 5)
	w.damage(t)
	owner := w.owner(t)
	res, err := Run(t.Context(), Config{Scratch: w.dir}, w.bkt, w.request())
	require.NoError(t, err)
	require.False(t, res.Report.Lossless)
	for range 2 { // the second time nothing changes
		require.NoError(t, Commit(t.Context(), keep, w.bkt, inOrder{owner, t, w}, res))
		m, err := owner.Current(t.Context(), tenant)
		require.NoError(t, err)
		require.Len(t, m.Blocks, 1)
		require.Equal(t, res.Block.ULID, m.Blocks[0].ULID)
		require.Len(t, m.Removed, 1)
		require.Equal(t, int64(1_700_000_000_000)+DefaultKeep.Milliseconds(), m.Removed[0].KeepUntil)
		require.False(t, m.Removed[0].Dropped)
		require.NotEmpty(t, m.LostIn(w.block.Entry.MinTime, w.block.Entry.MaxTime))
	}

	// Somebody else who salvaged the same block is too late.
	r := w.request()
	r.ULID = blockgen.ULID(1e12, 78)
	late, err := Run(t.Context(), Config{Scratch: w.dir}, w.bkt, r)
	require.NoError(t, err)
	require.ErrorIs(t, Commit(t.Context(), keep, w.bkt, owner, late), manifest.ErrConflict)
}

func TestCommitOfNothing(t *testing.T) {
	w := newWorld(t, 5)
	w.with(t, map[string][]byte{block.IndexName: nil, block.SidecarName: nil})
	owner := w.owner(t)
	res, err := Run(t.Context(), Config{Scratch: w.dir}, w.bkt, w.request())
	require.NoError(t, err)
	require.True(t, res.Empty)
	require.NoError(t, Commit(t.Context(), keep, w.bkt, inOrder{owner, t, w}, res))
	m, err := owner.Current(t.Context(), tenant)
	require.NoError(t, err)
	require.Empty(t, m.Blocks)
	require.True(t, m.Removed[0].Dropped)
	require.NotEmpty(t, m.Lost)
	require.Equal(t, res.Report.LostRanges(), m.Lost)
}

func TestMergedRanges(t *testing.T) {
	in := []Range{{50, 60}, {0, 10}, {10, 20}, {100, 110}, {104, 120}, {22, 30}}
	require.Equal(t, []Range{{0, 20}, {22, 30}, {50, 60}, {100, 120}}, merged(in, 10))
	require.Equal(t, []Range{{0, 30}, {50, 60}, {100, 120}}, merged(in, 3))
	require.Equal(t, []Range{{0, 60}, {100, 120}}, merged(in, 2))
	require.Equal(t, []Range{{0, 120}}, merged(in, 1))
	require.Empty(t, merged(nil, 1))
}
