package blockcheck

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	tsdbindex "github.com/prometheus/prometheus/tsdb/index"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/index"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// entry is what a sidecar is made of.
type entry struct {
	lset   labels.Labels
	chunks []index.Chunk
}

// rebuild replaces the sidecar by one of what change makes of the block's series. It is intact and fits to itself.
func (f files) rebuild(t *testing.T, change func([]entry) []entry) {
	t.Helper()
	meta, err := block.ParseMeta(f[block.MetaName])
	require.NoError(t, err)
	r, err := tsdbindex.NewReader(slice(f[block.IndexName]), tsdbindex.DecodePostingsRaw)
	require.NoError(t, err)
	p, err := r.Postings(t.Context(), "", "")
	require.NoError(t, err)
	var entries []entry
	size := len(f[block.SegmentName(1)])
	var last *index.Chunk
	for p.Next() {
		var b labels.ScratchBuilder
		var metas []chunks.Meta
		require.NoError(t, r.Series(p.At(), &b, &metas))
		e := entry{lset: b.Labels()}
		for _, m := range metas {
			_, offset := chunks.BlockChunkRef(m.Ref).Unpack()
			if last != nil {
				last.Length = uint32(offset) - last.Offset //nolint:gosec // small
			}
			e.chunks = append(e.chunks, index.Chunk{MinTime: m.MinTime, MaxTime: m.MaxTime, Offset: uint32(offset)}) //nolint:gosec // small
			last = &e.chunks[len(e.chunks)-1]
		}
		entries = append(entries, e)
	}
	require.NoError(t, p.Err())
	last.Length = uint32(size) - last.Offset //nolint:gosec // small
	var out bytes.Buffer
	b, err := index.NewBuilder(&out, meta.MinTime, meta.MaxTime, []int64{int64(size)})
	require.NoError(t, err)
	for _, e := range change(entries) {
		require.NoError(t, b.Add(e.lset, e.chunks))
	}
	_, _, err = b.Finish()
	require.NoError(t, err)
	f[block.SidecarName] = out.Bytes()
}

func TestASidecarOfOtherSeries(t *testing.T) {
	f, id := small(t)
	want := f.clone()
	f.rebuild(t, func(e []entry) []entry { return e })
	require.Equal(t, want[block.SidecarName], f[block.SidecarName])
	require.Empty(t, f.check(t, id))
	for name, c := range map[string]struct {
		change func(e []entry) []entry
		want   string
	}{
		"one less":     {func(e []entry) []entry { return e[1:] }, "it says series and chunks"},
		"another name": {func(e []entry) []entry { e[6].lset = labels.FromStrings("__name__", "zzz"); return e }, `metric "zzz"`},
		"another label": {func(e []entry) []entry {
			e[0].lset = labels.NewBuilder(e[0].lset).Set("mod", "9").Labels()
			return e
		}, `metric "m0"`},
		"another chunk": {func(e []entry) []entry { e[2].chunks[0] = e[1].chunks[0]; return e }, `metric "m1"`},
		"a shorter chunk": {func(e []entry) []entry {
			c := e[3].chunks
			c[len(c)-1].Length--
			return e
		}, `metric "m1"`},
		"another time": {func(e []entry) []entry { e[4].chunks[0].MaxTime--; return e }, `metric "m2"`},
	} {
		t.Run(name, func(t *testing.T) {
			f := want.clone()
			f.rebuild(t, c.change)
			lines := f.check(t, id)
			require.NotEmpty(t, lines)
			requireFault(t, lines, block.SidecarName, c.want)
		})
	}
}

// TestASidecarIsNotBlamedForItsBlock: what it should say is not known then.
func TestASidecarIsNotBlamedForItsBlock(t *testing.T) {
	f, id := small(t)
	f[block.IndexName][len(f[block.IndexName])/2] ^= 1
	for _, line := range f.check(t, id) {
		require.NotContains(t, line, block.SidecarName)
	}
}

func TestCompareSidecar(t *testing.T) {
	f, id := small(t)
	_, sum, err := Gather(t.Context(), memory(f), id, 1)
	require.NoError(t, err)
	require.Empty(t, sum.Others)
	size := int64(len(f[block.SidecarName]))
	require.Positive(t, sum.DirectoryBytes)
	require.Empty(t, CompareSidecar(sum, manifest.Block{SidecarBytes: size, DirectoryBytes: sum.DirectoryBytes}))
	require.Empty(t, CompareSidecar(sum, manifest.Block{}), "not noted yet")
	got := CompareSidecar(sum, manifest.Block{SidecarBytes: size + 1, DirectoryBytes: sum.DirectoryBytes - 1})
	require.Len(t, got, 2)
	require.Equal(t, fmt.Sprintf("duramen.idx: its size is %d bytes here and %d in the manifest", size, size+1), got[0].String())
}
