package oracle

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/internal/errkind"
)

// TestDamagedSidecars: whatever befalls the bytes of sidecars, the answer is that of the reference. The blocks themselves
// are whole, so a sidecar can always be built again; an error is a failure here.
func TestDamagedSidecars(t *testing.T) {
	eachSeed(t, 0.3, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed)
		defer w.close(t)
		r := rand.New(rand.NewPCG(seed, 5))
		for _, b := range w.blocks {
			if r.IntN(3) > 0 {
				damageObject(t, r, w.bkt, block.Key(tenantID, b.ULID, "duramen.idx"))
			}
		}
		st, closeStore := newStore(t, w.bkt, setup{})
		defer closeStore()
		for range 3 {
			a := w.randomAsk(r)
			a.sorted = true
			got, err := w.answer(t.Context(), t, st, a)
			require.NoError(t, err, "seed %d: %s", seed, a)
			requireEqual(t, w.want(t, a), got, "seed %d: %s", seed, a)
		}
	})
}

// TestDamagedChunks: the answer is right as far as nothing damaged was read, else an error of kind Corrupt.
func TestDamagedChunks(t *testing.T) {
	failed := 0
	for seed := range uint64(20) {
		w := newWorld(t, seed)
		r := rand.New(rand.NewPCG(seed, 6))
		b := w.blocks[r.IntN(len(w.blocks))]
		if b.Chunks == 0 {
			w.close(t)
			continue
		}
		damageObject(t, r, w.bkt, block.Key(tenantID, b.ULID, block.SegmentName(1)))
		st, closeStore := newStore(t, w.bkt, setup{})
		for range 4 {
			a := w.randomAsk(r)
			a.sorted = true
			got, err := w.answer(t.Context(), t, st, a)
			if err != nil {
				failed++
				requireNamed(t, w, err)
				require.Contains(t, []errkind.Kind{errkind.Corrupt, errkind.Unavailable}, errkind.Of(err), "seed %d: %v", seed, err)
				continue
			}
			requireEqual(t, w.want(t, a), got, "seed %d: %s", seed, a)
		}
		closeStore()
		w.close(t)
	}
	require.Positive(t, failed)
}

func readObject(t testing.TB, bkt bucket.Bucket, key string) []byte {
	t.Helper()
	rc, err := bkt.Get(t.Context(), key)
	require.NoError(t, err)
	data, err := io.ReadAll(rc)
	require.NoError(t, err)
	require.NoError(t, rc.Close())
	return data
}

// damageObject flips, cuts, moves or replaces bytes of an object.
func damageObject(t testing.TB, r *rand.Rand, bkt bucket.Bucket, key string) {
	t.Helper()
	data := readObject(t, bkt, key)
	at := r.IntN(len(data))
	switch r.IntN(6) {
	case 0, 1:
		data[at] ^= 1 << r.IntN(8)
	case 2:
		data = data[:at]
	case 3:
		data = append(data, data[at:]...)
	case 4:
		n := min(1+r.IntN(64), len(data)-at)
		for i := range n {
			data[at+i] = byte(r.Uint32())
		}
	default:
		data = slices.Delete(data, at, min(at+1+r.IntN(8), len(data)))
	}
	require.NoError(t, bkt.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))))
}

// TestCraftedSidecars changes what the compressed sections of a sidecar hold and sets all checksums right, as somebody
// would who may write to the bucket. No check can tell such a sidecar from one of another block, so the answer may be
// wrong; the process has to survive it, in bounded memory.
func TestCraftedSidecars(t *testing.T) {
	eachSeed(t, 0.3, func(t *testing.T, seed uint64) {
		w := newWorld(t, seed)
		defer w.close(t)
		r := rand.New(rand.NewPCG(seed, 7))
		for i, b := range w.blocks {
			key := block.Key(tenantID, b.ULID, "duramen.idx")
			data, directory := craft(t, r, readObject(t, w.bkt, key))
			require.NoError(t, w.bkt.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))))
			w.blocks[i].SidecarBytes, w.blocks[i].DirectoryBytes = int64(len(data)), directory
		}
		st, closeStore := newStore(t, w.bkt, setup{small: r.IntN(2) == 0})
		defer closeStore()
		for range 3 {
			a := w.randomAsk(r)
			q, err := st.Querier(tenantID, w.blocks, nil, a.mint, a.maxt)
			require.NoError(t, err)
			_, _ = a.read(q.Select(t.Context(), a.sorted, a.selectHints(), a.copied()...))
			_, _, _ = q.LabelValues(t.Context(), "pod", nil, a.copied()...)
			_, _, _ = q.LabelNames(t.Context(), nil, a.copied()...)
			require.NoError(t, q.Close())
		}
	})
}

// craft changes the core of the directory of a sidecar and packs it again.
func craft(t testing.TB, r *rand.Rand, sidecar []byte) (out []byte, directory int64) {
	t.Helper()
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	footer := sidecar[len(sidecar)-28:]
	word := func(i int) int { return int(binary.LittleEndian.Uint32(footer[4*i:])) }
	begin := len(sidecar) - word(3)
	packed, sections := sidecar[begin:begin+word(0)], sidecar[begin+word(0):len(sidecar)-28]
	z, err := zstd.NewReader(nil)
	require.NoError(t, err)
	defer z.Close()
	core, err := z.DecodeAll(packed, nil)
	require.NoError(t, err)
	for range 1 + r.IntN(3) {
		switch at := r.IntN(len(core)); r.IntN(4) {
		case 0:
			core[at] = byte(r.Uint32())
		case 1:
			core[at] += byte(1 + r.IntN(3))
		case 2:
			core = slices.Insert(core, at, 0xff, 0xff, 0xff, 0xff, 0x0f)
		default:
			core = slices.Delete(core, at, min(len(core), at+1))
		}
	}
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	require.NoError(t, err)
	again := e.EncodeAll(core, nil)
	require.NoError(t, e.Close())
	out = slices.Concat(sidecar[:begin], again, sections)
	foot := binary.LittleEndian.AppendUint32(nil, uint32(len(again)))
	foot = binary.LittleEndian.AppendUint32(foot, uint32(len(core)))
	foot = binary.LittleEndian.AppendUint32(foot, crc32.Checksum(again, castagnoli))
	foot = binary.LittleEndian.AppendUint32(foot, uint32(len(again)+len(sections)+28))
	foot = binary.LittleEndian.AppendUint32(foot, crc32.Checksum(foot, castagnoli))
	return append(append(out, foot...), sidecar[len(sidecar)-8:]...), int64(len(again) + len(sections) + 28)
}
