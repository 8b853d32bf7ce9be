package blockcheck

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/chunkstore/rawblock"
)

// TestSoundBlocks: what Prometheus' own writers make has no fault, wherever it lies, and is counted right.
func TestSoundBlocks(t *testing.T) {
	for _, s := range []shape{
		{series: 1, samples: 1, step: 1},
		{series: 20, samples: 500, step: 15_000},
		{series: 3000, samples: 3, step: 60_000, pad: strings.Repeat("x", 300)}, // symbols on several pages
	} {
		t.Run(fmt.Sprintf("%d series", s.series), func(t *testing.T) {
			dir := writeBlock(t, t.TempDir(), s)
			bkt, id := upload(t, dir)
			for _, src := range []Source{InBucket(bkt, tenantID, id), InDirectory(dir)} {
				read := int64(0)
				sum, err := Check(t.Context(), src, id, Options{Read: func(n int64) { read += n }}, func(f Fault) { t.Error(f) })
				require.NoError(t, err)
				require.EqualValues(t, s.series, sum.Series)
				require.EqualValues(t, s.series*s.samples, sum.Samples())
				require.Equal(t, sum.Meta.Stats.NumChunks, sum.Chunks)
				require.Zero(t, sum.MinTime)
				require.Equal(t, int64(s.samples-1)*s.step, sum.MaxTime)
				require.Positive(t, read)
				require.Zero(t, sum.Faults)
			}
		})
	}
}

// TestSoundCompaction: a block that was compacted from overlapping ones, with several segments.
func TestSoundCompaction(t *testing.T) {
	dir := t.TempDir()
	dirs := []string{
		writeBlock(t, dir, shape{series: 40, samples: 400, step: 1000}),
		writeBlock(t, dir, shape{series: 50, samples: 300, step: 1700}),
	}
	c, err := tsdb.NewLeveledCompactorWithOptions(t.Context(), nil, slog.New(slog.DiscardHandler), []int64{1 << 40},
		chunkenc.NewPool(), tsdb.LeveledCompactorOptions{MaxBlockChunkSegmentSize: 8 << 10, EnableOverlappingCompaction: true})
	require.NoError(t, err)
	ids, err := c.Compact(dir, dirs, nil)
	require.NoError(t, err)
	out := filepath.Join(dir, ids[0].String())
	require.FileExists(t, filepath.Join(out, "chunks", "000003"))
	faults, sum, err := Gather(t.Context(), InDirectory(out), ids[0], 10)
	require.NoError(t, err)
	require.Empty(t, faults)
	require.EqualValues(t, 50, sum.Series)

	f := load(t, uploaded(t, out), ids[0])
	delete(f, "chunks/000002")
	lines := f.check(t, ids[0])
	requireFault(t, lines, "chunks/000002: it is missing; meta.json names it with")
	requireFault(t, lines, "chunks/000002: it is missing, and later ones are there")
	require.Len(t, lines, 2, "the others are sound")
}

func uploaded(t *testing.T, dir string) bucket.Bucket {
	t.Helper()
	bkt, _ := upload(t, dir)
	return bkt
}

// small is a block whose bytes can be changed one by one.
func small(t testing.TB) (files, ulid.ULID) {
	t.Helper()
	bkt, id := upload(t, writeBlock(t, t.TempDir(), shape{series: 7, samples: 125, start: 1000, step: 15_000}))
	return load(t, bkt, id), id
}

// TestEveryByte changes a bit of each byte of index and chunks: no change goes unnoticed.
func TestEveryByte(t *testing.T) {
	f, id := small(t)
	require.Empty(t, f.check(t, id))
	step := 1
	if raceDetector { // one goroutine does it all, slowly
		step = 11
	}
	for _, name := range []string{block.IndexName, block.SegmentName(1), block.SidecarName} {
		data := f[name]
		for i := 0; i < len(data); i += step {
			data[i] ^= 1 << (i % 8)
			faults, _, err := Gather(t.Context(), memory(f), id, 10)
			require.NoError(t, err, "byte %d of %s", i, name)
			require.NotEmpty(t, faults, "byte %d of %s, %d bytes", i, name, len(data))
			require.True(t, slices.ContainsFunc(faults, func(f Fault) bool { return f.File == name }), "%v", faults)
			data[i] ^= 1 << (i % 8)
		}
		require.Empty(t, f.check(t, id))
	}
}

// TestEveryByteOfMeta: meta.json has no checksum. What the block itself or its entry in the manifest says as well cannot
// be changed; the rest is listed in docs/coverage.md, and here.
func TestEveryByteOfMeta(t *testing.T) {
	f, id := small(t)
	meta, err := block.ParseMeta(f[block.MetaName])
	require.NoError(t, err)
	entry := meta.ManifestBlock(int64(len(f[block.MetaName])))
	data := f[block.MetaName]
	for i := range data {
		data[i] ^= 0x01
		found := len(f.check(t, id)) > 0
		if m, err := block.ParseMeta(data); err == nil && !found {
			found = len(CompareEntry(m, int64(len(data)), entry)) > 0
		}
		data[i] ^= 0x01
		line := string(data[strings.LastIndexByte(string(data[:i]), '\n')+1:])
		line, _, _ = strings.Cut(line, "\n")
		if !found && strings.TrimSpace(line) != "" {
			require.Regexp(t, `"(version|sources|labels|downsample|resolution|source|thanos|duramen|compaction|stats|files)"|^\t*[\]{}]|"meta.json"`, line,
				"byte %d", i)
		}
	}
}

// TestTruncated cuts each file at every length.
func TestTruncated(t *testing.T) {
	f, id := small(t)
	for name, data := range f {
		step := 1 + len(data)/500
		for n := 0; n < len(data); n += step {
			c := f.clone()
			c[name] = data[:n]
			if name != block.MetaName || n < len(data)-1 { // its last byte ends the line
				require.NotEmpty(t, c.check(t, id), "%s of %d bytes", name, n)
			}
		}
		c := f.clone()
		c[name] = append(c[name], 0)
		switch name {
		case block.MetaName:
		case block.SidecarName:
			requireFault(t, c.check(t, id), name, "no footer")
			delete(c, name)
			require.Empty(t, c.check(t, id), "a block without a sidecar is whole")
			continue
		default:
			requireFault(t, c.check(t, id), name, "bytes; meta.json says")
		}
		delete(c, name)
		requireFault(t, c.check(t, id), name, "it is missing")
	}
}

// TestGoesOn: faults at several places are all named, each with its place, and what is sound is not blamed.
func TestGoesOn(t *testing.T) {
	f, id := small(t)
	chunk := f[block.SegmentName(1)]
	chunk[20] ^= 1            // in the first chunk
	chunk[len(chunk)-10] ^= 1 // in the last one
	at := seriesOffsets(t, f)
	f[block.IndexName][at[4]+3] ^= 1
	lines := f.check(t, id)
	requireFault(t, lines, "chunks/000001 at byte 8", `{__name__="m0", i="000000", mod="0"}`, "checksum of the chunk differs")
	requireFault(t, lines, "chunks/000001 at byte", `{__name__="m4", i="000004", mod="1"}`, "checksum of the chunk differs")
	requireFault(t, lines, fmt.Sprintf("index at byte %d: broken series: its checksum differs: up to byte %d no series", at[4], at[5]))
	requireFault(t, lines, "chunks/000001", "no series in the index that can be read refers to")
	require.Len(t, lines, 4)
}

// seriesOffsets returns where the series of an index begin.
func seriesOffsets(t testing.TB, f files) (offsets []int64) {
	t.Helper()
	r, err := index.NewReader(slice(f[block.IndexName]), index.DecodePostingsRaw)
	require.NoError(t, err)
	k, v := index.AllPostingsKey()
	p, err := r.Postings(t.Context(), k, v)
	require.NoError(t, err)
	for p.Next() {
		offsets = append(offsets, int64(p.At())*rawblock.SeriesAlign) //nolint:gosec // small
	}
	require.NoError(t, p.Err())
	return offsets
}

type slice []byte

func (s slice) Len() int                    { return len(s) }
func (s slice) Range(start, end int) []byte { return s[start:end] }

// contents returns the table of contents of an index.
func contents(t testing.TB, data []byte) rawblock.Contents {
	t.Helper()
	c := &check{report: func(f Fault) { t.Error(f) }, sum: &Summary{}}
	src := memory{block.IndexName: data}
	c.src, c.ctx = src, t.Context()
	got, ok, err := c.contents(c.beside(block.IndexName, int64(len(data))))
	require.NoError(t, err)
	require.True(t, ok)
	return got
}

// TestLies changes a block in ways that keep all checksums right.
func TestLies(t *testing.T) {
	sound, id := small(t)
	meta, err := block.ParseMeta(sound[block.MetaName])
	require.NoError(t, err)
	stats, ix := meta.Stats, block.IndexName
	for name, tt := range map[string]struct {
		change func(t *testing.T, f files)
		want   []string
	}{
		"a symbol that changes places": {func(t *testing.T, f files) {
			data, c := f[ix], contents(t, f[ix])
			at := strings.Index(string(data), "\x06000003")
			copy(data[at:], "\x06000005")
			reseal(data, c.Symbols+4, c.Symbols+4+int64(binary.BigEndian.Uint32(data[c.Symbols:])))
		}, []string{"index at byte", "does not follow", "in order"}},
		"a series that is missing in a list": {func(t *testing.T, f files) {
			data, c := f[ix], contents(t, f[ix])
			at := alignUp(c.Postings, 4)
			n := int64(binary.BigEndian.Uint32(data[at:]))
			last := binary.BigEndian.Uint32(data[at+n:])
			binary.BigEndian.PutUint32(data[at+n:], last+1)
			reseal(data, at+4, at+4+n)
		}, []string{"the list of all series is not that of the series"}},
		"a list that is not in order": {func(t *testing.T, f files) {
			data, c := f[ix], contents(t, f[ix])
			at := alignUp(c.Postings, 4)
			n := int64(binary.BigEndian.Uint32(data[at:]))
			a, b := binary.BigEndian.Uint32(data[at+8:]), binary.BigEndian.Uint32(data[at+12:])
			binary.BigEndian.PutUint32(data[at+8:], b)
			binary.BigEndian.PutUint32(data[at+12:], a)
			reseal(data, at+4, at+4+n)
		}, []string{`postings of =""`, "are not in order"}},
		"postings of another label": {func(t *testing.T, f files) {
			data, c := f[ix], contents(t, f[ix])
			at := strings.LastIndex(string(data), "\x03mod\x011")
			copy(data[at:], "\x03mod\x019")
			reseal(data, c.PostingsTable+4, c.PostingsTable+4+int64(binary.BigEndian.Uint32(data[c.PostingsTable:])))
		}, []string{"postings of"}},
		"other counts": {func(t *testing.T, f files) {
			changeMeta(t, f, func(m *block.Meta) { m.Stats.NumSamples--; m.Stats.NumSeries++; m.Stats.NumChunks += 2 })
		}, []string{fmt.Sprintf("meta.json: it says 8 series instead of 7, %d chunks instead of %d, 874 samples instead of 875",
			stats.NumChunks+2, stats.NumChunks)}},
		"other kinds": {func(t *testing.T, f files) {
			changeMeta(t, f, func(m *block.Meta) { m.Stats.NumFloatSamples--; m.Stats.NumHistogramSamples++ })
		}, []string{"float samples instead of", "histogram samples instead of"}},
		"a shorter range": {func(t *testing.T, f files) {
			changeMeta(t, f, func(m *block.Meta) { m.MaxTime-- })
		}, []string{"chunks/000001", "outside of the block's range from 1000 to before 1861000"}},
		"another block's meta.json": {func(t *testing.T, f files) {
			changeMeta(t, f, func(m *block.Meta) { m.ULID[0]++ })
		}, []string{"meta.json: it is of block"}},
		"a segment that nobody names": {func(t *testing.T, f files) {
			f[block.SegmentName(2)] = slices.Clone(f[block.SegmentName(1)])
		}, []string{fmt.Sprintf("chunks/000002 at byte 8: no series in the index that can be read refers to %d chunks", stats.NumChunks)}},
		"the index's version": {func(_ *testing.T, f files) { f[ix][4] = 3 }, []string{"version of the index is 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := sound.clone()
			tt.change(t, f)
			requireFault(t, f.check(t, id), tt.want...)
		})
	}
}

func changeMeta(t *testing.T, f files, change func(m *block.Meta)) {
	t.Helper()
	m, err := block.ParseMeta(f[block.MetaName])
	require.NoError(t, err)
	change(m)
	f[block.MetaName], err = json.Marshal(m)
	require.NoError(t, err)
}

// handmade is a block with one series, whose index says what it likes of the chunks.
func handmade(t *testing.T, metas func(refs []int64) [][4]int64, chunks ...[]byte) (files, ulid.ULID) {
	t.Helper()
	id := ulid.MustNew(1, ulid.DefaultEntropy())
	segment := []byte{0x85, 0xBD, 0x40, 0xDD, 1, 0, 0, 0}
	var refs []int64
	for _, data := range chunks {
		refs = append(refs, int64(len(segment)))
		segment = binary.AppendUvarint(segment, uint64(len(data)))
		from := len(segment)
		segment = append(append(segment, byte(chunkenc.EncXOR)), data...)
		to := len(segment)
		segment = append(segment, 0, 0, 0, 0)
		reseal(segment, int64(from), int64(to))
	}
	dir := t.TempDir()
	w, err := index.NewWriter(t.Context(), filepath.Join(dir, "index"))
	require.NoError(t, err)
	require.NoError(t, w.AddSymbol("a"))
	require.NoError(t, w.AddSymbol("b"))
	require.NoError(t, w.AddSeries(1, labels.FromStrings("a", "b")))
	require.NoError(t, w.Close())
	ix, err := os.ReadFile(filepath.Join(dir, "index"))
	require.NoError(t, err)
	// The writer refuses wrong chunks: the entry is put together here. The last section moves, and its place with it.
	c := contents(t, ix)
	at := alignUp(c.Series, rawblock.SeriesAlign)
	body := []byte{1, 0, 1}
	var ref, maxt int64
	list := metas(refs)
	body = binary.AppendUvarint(body, uint64(len(list)))
	for i, m := range list {
		if i == 0 {
			body = binary.AppendUvarint(binary.AppendUvarint(binary.AppendVarint(body, m[0]), uint64(m[1]-m[0])), uint64(m[2]))
		} else {
			body = binary.AppendVarint(binary.AppendUvarint(binary.AppendUvarint(body, uint64(m[0]-maxt)), uint64(m[1]-m[0])), m[2]-ref)
		}
		maxt, ref = m[1], m[2]
	}
	entry := binary.AppendUvarint(nil, uint64(len(body)))
	from := len(entry)
	entry = append(append(entry, body...), 0, 0, 0, 0)
	reseal(entry, int64(from), int64(from+len(body)))
	for len(entry)%4 != 0 {
		entry = append(entry, 0)
	}
	out := append(slices.Clone(ix[:at]), entry...)
	shift := int64(len(out)) - alignUp(c.Postings, 4)
	out = append(out, ix[alignUp(c.Postings, 4):]...)
	end := int64(len(out)) - rawblock.ContentsBytes
	postings := int64(len(ix[:at]) + len(entry))
	for i, v := range []int64{c.Symbols, c.Series, postings, c.LabelIndicesTable + shift, postings, c.PostingsTable + shift} {
		binary.BigEndian.PutUint64(out[end+int64(i)*8:], uint64(v))
	}
	reseal(out, end, end+48)
	// Offsets in the postings table move as well; they are small enough to be one byte.
	table := c.PostingsTable + shift
	for _, entry := range []string{"\x02\x00\x00", "\x02\x01a\x01b"} {
		i := table + int64(strings.Index(string(out[table:]), entry)+len(entry))
		out[i] += byte(shift)
	}
	reseal(out, table+4, table+4+int64(binary.BigEndian.Uint32(out[table:])))
	meta := fmt.Sprintf(`{"ulid":%q,"minTime":0,"maxTime":1000,"version":1,"compaction":{"level":1},"stats":{"numSeries":1,"numChunks":%d,"numSamples":%d}}`,
		id, len(list), len(list)*2)
	return files{block.IndexName: out, block.SegmentName(1): segment, block.MetaName: []byte(meta)}, id
}

// TestChunksOfASeries: what the index may say of the chunks of a series, and what not.
func TestChunksOfASeries(t *testing.T) {
	early, late := xorChunk(t, sample{1, 1}, sample{5, 2}), xorChunk(t, sample{6, 1}, sample{9, 2})
	right := func(refs []int64) [][4]int64 { return [][4]int64{{1, 5, refs[0]}, {6, 9, refs[1]}} }
	f, id := handmade(t, right, early, late)
	require.Empty(t, f.check(t, id))

	wide := func(refs []int64) [][4]int64 { return [][4]int64{{0, 5, refs[0]}, {6, 9, refs[1]}} }
	f, id = handmade(t, wide, early, late)
	require.Empty(t, f.check(t, id), "a range that is too wide hides nothing")

	for name, tt := range map[string]struct {
		metas  func(refs []int64) [][4]int64
		chunks [][]byte
		want   []string
	}{
		"narrow": {
			func(refs []int64) [][4]int64 { return [][4]int64{{1, 4, refs[0]}, {6, 9, refs[1]}} },
			[][]byte{early, late},
			[]string{`chunks/000001 at byte 8, series {a="b"}: the chunk has samples from 1 to 5, and the index says 1 to 4`},
		},
		"overlapping": {
			func(refs []int64) [][4]int64 { return [][4]int64{{1, 6, refs[0]}, {6, 9, refs[1]}} },
			[][]byte{early, late},
			[]string{`index at byte`, `{a="b"}`, "its chunk from 6 to 9 does not follow the one from 1 to 6"},
		},
		"swapped": {
			func(refs []int64) [][4]int64 { return [][4]int64{{1, 5, refs[1]}, {6, 9, refs[0]}} },
			[][]byte{late, early},
			[]string{`index, series {a="b"}: its chunk at 8 of chunks/000001 comes after a chunk that lies behind it`},
		},
		"not in order of time": {
			right,
			[][]byte{xorChunk(t, sample{5, 1}, sample{1, 2}), late},
			[]string{`{a="b"}: samples of the chunk are not in order of time`},
		},
		"one time twice": {
			right,
			[][]byte{xorChunk(t, sample{5, 1}, sample{5, 2}), late},
			[]string{`{a="b"}: samples of the chunk are not in order of time`},
		},
		"outside of the block": {
			func(refs []int64) [][4]int64 { return [][4]int64{{1, 5, refs[0]}, {6, 1000, refs[1]}} },
			[][]byte{early, xorChunk(t, sample{6, 1}, sample{1000, 2})},
			[]string{`{a="b"}: the chunk has samples from 6 to 1000, outside of the block's range from 0 to before 1000`},
		},
		"no samples":   {right, [][]byte{{0, 0}, late}, []string{"the chunk has no samples"}},
		"undecodable":  {right, [][]byte{{0, 9, 1}, late}, []string{"the chunk cannot be decoded"}},
		"no chunks":    {func([]int64) [][4]int64 { return nil }, nil, []string{`index at byte`, "it has no chunks"}},
		"no segment":   {func([]int64) [][4]int64 { return [][4]int64{{1, 5, 7 << 32}} }, nil, []string{"chunks/000008: the index refers to it"}},
		"beyond a end": {func([]int64) [][4]int64 { return [][4]int64{{1, 5, 900}} }, nil, []string{"leads beyond the end of the file"}},
		"between": {
			func(refs []int64) [][4]int64 { return [][4]int64{{6, 9, refs[1]}} },
			[][]byte{early, late},
			[]string{"chunks/000001 at byte 8: no series in the index that can be read refers to 1 chunks"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, id := handmade(t, tt.metas, tt.chunks...)
			requireFault(t, f.check(t, id), tt.want...)
		})
	}
}

// TestBucketThatFails: that is no fault of the block.
func TestBucketThatFails(t *testing.T) {
	inner, id := upload(t, writeBlock(t, t.TempDir(), shape{series: 5, samples: 5, step: 1000}))
	for _, fault := range []faultbucket.Fault{faultbucket.Before, faultbucket.Truncate} {
		bkt := faultbucket.New(inner, faultbucket.On("GetRange", fault))
		faults, _, err := Gather(t.Context(), InBucket(bkt, tenantID, id), id, 10)
		require.Error(t, err, fault)
		require.Empty(t, faults)
		for n := range 8 {
			bkt := faultbucket.New(inner, faultbucket.At(n, fault))
			faults, _, err := Gather(t.Context(), InBucket(bkt, tenantID, id), id, 10)
			require.Empty(t, faults)
			if n > 0 { // the listing is not repeated here
				require.NoError(t, err, "one failure is got over")
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := Gather(ctx, InBucket(inner, tenantID, id), id, 10)
	require.ErrorIs(t, err, context.Canceled)
}

// TestPagesAreBounded reads symbols all over a large table.
func TestPagesAreBounded(t *testing.T) {
	dir := writeBlock(t, t.TempDir(), shape{series: 2000, samples: 1, step: 1, pad: strings.Repeat("y", 500)})
	f := load(t, uploaded(t, dir), ulid.MustParse(filepath.Base(dir)))
	c := &check{report: func(f Fault) { t.Error(f) }, sum: &Summary{}, src: memory(f), ctx: t.Context()}
	data := c.beside(block.IndexName, int64(len(f[block.IndexName])))
	table, err := c.symbols(data, contents(t, f[block.IndexName]))
	require.NoError(t, err)
	var want []string
	for n := range table.count {
		text, err := table.get(n)
		require.NoError(t, err)
		want = append(want, text)
	}
	require.True(t, slices.IsSorted(want))
	clear(table.cached)
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		n := r.Uint64N(table.count)
		text, err := table.get(n)
		require.NoError(t, err)
		require.Equal(t, want[n], text)
	}
	require.Less(t, table.recent.Len(), 12)
	_, err = table.get(table.count)
	require.Error(t, err)
}

// FuzzCheck: no bytes make the check panic, hang or blame the source.
func FuzzCheck(f *testing.F) {
	sound, id := small(f)
	f.Add(uint32(0), byte(0), uint32(5), byte(1), false)
	f.Add(uint32(60), byte(7), uint32(600), byte(200), true)
	f.Fuzz(func(t *testing.T, a uint32, x byte, b uint32, y byte, chunks bool) {
		c := sound.clone()
		name := block.IndexName
		if chunks {
			name = block.SegmentName(1)
		}
		data := c[name]
		data[int(a)%len(data)] ^= x
		data[int(b)%len(data)] ^= y
		resealAll(t, c)
		_ = c.check(t, id)
	})
}

// resealAll makes the checksums right again where sections still have a place.
func resealAll(t *testing.T, f files) {
	t.Helper()
	data := f[block.IndexName]
	end := int64(len(data)) - rawblock.ContentsBytes
	reseal(data, end, end+48)
	d := rawblock.Cursor{B: data[end : end+48]}
	for i := range 6 {
		at := int64(d.Uint64()) //nolint:gosec // checked below
		if i != 0 && i != 5 || at < 0 || at > end-8 {
			continue
		}
		if n := int64(binary.BigEndian.Uint32(data[at:])); at+4+n+4 <= end {
			reseal(data, at+4, at+4+n)
		}
	}
	for at := int64(0); at+rawblock.SeriesAlign < end; at += rawblock.SeriesAlign {
		n, used := binary.Uvarint(data[at:end])
		if from := at + int64(used); used > 0 && n > 0 && n < 1000 && from+int64(n)+4 < end && a(data, from, int64(n)) {
			reseal(data, from, from+int64(n))
		}
	}
}

// a reports whether the entry looks like one of the small block's series.
func a(data []byte, from, n int64) bool { return n > 10 && data[from] == 3 }
