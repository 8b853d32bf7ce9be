package reader

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// encodeRecord writes a chunk as it stands in a segment.
func encodeRecord(enc chunkenc.Encoding, data []byte) []byte {
	out := binary.AppendUvarint(nil, uint64(len(data)))
	start := len(out)
	out = append(append(out, byte(enc)), data...)
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out[start:], castagnoli))
}

func TestDecodeRecord(t *testing.T) {
	data := make([]byte, 300)
	whole := encodeRecord(chunkenc.EncXOR, data)
	got, enc, err := decodeRecord(append(whole, 1, 2, 3))
	require.NoError(t, err)
	require.Equal(t, data, got)
	require.Equal(t, chunkenc.EncXOR, enc)
	for cut := range whole {
		_, _, err := decodeRecord(whole[:cut])
		require.ErrorIs(t, err, ErrDamaged, "cut at %d", cut)
	}
	whole[10] ^= 1
	_, _, err = decodeRecord(whole)
	require.ErrorIs(t, err, ErrDamaged)
	_, _, err = decodeRecord([]byte{0xff, 0xff, 0xff, 0xff, 0x7f, 1, 2, 3})
	require.ErrorIs(t, err, ErrDamaged, "a length of 34 GiB")
	_, err = newChunk(chunkenc.Encoding(200), data)
	require.ErrorIs(t, err, ErrDamaged)
	for _, enc := range []chunkenc.Encoding{chunkenc.EncXOR, chunkenc.EncHistogram, chunkenc.EncFloatHistogram} {
		_, err = newChunk(enc, nil)
		require.ErrorIs(t, err, ErrDamaged, "encoding %s without a header", enc)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add([]byte{})
	f.Add(encodeRecord(chunkenc.EncXOR, []byte{0, 1, 2, 3}))
	f.Add(encodeRecord(chunkenc.EncHistogram, make([]byte, 200))[:100])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, buf []byte) {
		data, enc, err := decodeRecord(buf)
		if err == nil {
			again := encodeRecord(enc, data)
			_, n := binary.Uvarint(buf) // may be longer than need be
			_, m := binary.Uvarint(again)
			require.Equal(t, again[m:], buf[n:n+len(again)-m])
			_, _ = newChunk(enc, data)
		}
	})
}
