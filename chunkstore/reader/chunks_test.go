package reader

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// encodeChunk writes a chunk as it stands in a segment.
func encodeChunk(enc chunkenc.Encoding, data []byte) []byte {
	out := binary.AppendUvarint(nil, uint64(len(data)))
	start := len(out)
	out = append(append(out, byte(enc)), data...)
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out[start:], castagnoli))
}

func TestDecodeChunk(t *testing.T) {
	data := make([]byte, 300)
	whole := encodeChunk(chunkenc.EncXOR, data)
	got, enc, size, err := decodeChunk(append(whole, 1, 2, 3))
	require.NoError(t, err)
	require.Equal(t, data, got)
	require.Equal(t, chunkenc.EncXOR, enc)
	require.Equal(t, int64(len(whole)), size)
	for cut := range whole {
		_, _, size, err := decodeChunk(whole[:cut])
		require.ErrorIs(t, err, errShort, "cut at %d", cut)
		require.Greater(t, size, int64(cut))
	}
	whole[10] ^= 1
	_, _, _, err = decodeChunk(whole)
	require.ErrorIs(t, err, ErrDamaged)
	_, _, _, err = decodeChunk([]byte{0xff, 0xff, 0xff, 0xff, 0x7f, 1, 2, 3})
	require.ErrorIs(t, err, ErrDamaged, "a length that would cost 34 GiB")
}

func FuzzDecodeChunk(f *testing.F) {
	f.Add([]byte{})
	f.Add(encodeChunk(chunkenc.EncXOR, []byte{0, 1, 2, 3}))
	f.Add(encodeChunk(chunkenc.EncHistogram, make([]byte, 200))[:100])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, buf []byte) {
		data, enc, size, err := decodeChunk(buf)
		if err == nil {
			again := encodeChunk(enc, data)
			_, n := binary.Uvarint(buf) // may be longer than need be
			_, m := binary.Uvarint(again)
			require.Equal(t, again[m:], buf[n:size])
		}
	})
}
