package ingester

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
	"github.com/stretchr/testify/require"
)

// writeSegment returns the bytes of one segment with the records.
func writeSegment(t testing.TB, how compression.Type, records [][]byte) []byte {
	t.Helper()
	dir := t.TempDir()
	w, err := wlog.NewSize(discardLog(), nil, dir, 1<<30, how)
	require.NoError(t, err)
	for _, r := range records {
		require.NoError(t, w.Log(r))
	}
	data, err := os.ReadFile(filepath.Join(dir, "00000000"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return data
}

func randomRecords(r *rand.Rand, n, most int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = bytes.Repeat([]byte{byte(1 + r.IntN(255))}, r.IntN(most))
		for j := range out[i] {
			if j%3 == 0 {
				out[i][j] = byte(r.IntN(256))
			}
		}
	}
	return out
}

func scanBytes(t testing.TB, data []byte) (records [][]byte, bad []badStretch) {
	t.Helper()
	bad, size, err := scanSegmentFrom(bytes.NewReader(data), func(rec []byte) error {
		records = append(records, bytes.Clone(rec))
		return nil
	})
	require.NoError(t, err)
	require.EqualValues(t, len(data), size)
	return records, bad
}

func TestScanReadsWhatStockWrites(t *testing.T) {
	for _, how := range compression.Types() {
		for _, most := range []int{1, 100, 5000, 100_000} {
			t.Run(fmt.Sprintf("%s/%d", how, most), func(t *testing.T) {
				want := randomRecords(rand.New(rand.NewPCG(1, 2)), 60, most)
				got, bad := scanBytes(t, writeSegment(t, how, want))
				require.Empty(t, bad)
				require.Len(t, got, len(want))
				for i := range want {
					require.True(t, bytes.Equal(want[i], got[i]), "record %d", i)
				}
			})
		}
	}
}

// FuzzScan compares with stock's reader: up to the first fault both see the same records, and the scan sees a fault
// whenever stock does. Behind it the scan must go on without inventing records.
func FuzzScan(f *testing.F) {
	for seed := range uint64(4) {
		for _, how := range compression.Types() {
			data := writeSegment(f, how, randomRecords(rand.New(rand.NewPCG(seed, 7)), 20, 8000))
			f.Add(data, 0, byte(0))
			f.Add(data, len(data)/2, byte(1))
			f.Add(data[:len(data)*2/3], len(data)/3, byte(0x80))
		}
	}
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0}, 0, byte(0))
	f.Add(make([]byte, logPageSize+1), 5, byte(9))
	f.Fuzz(func(t *testing.T, data []byte, at int, flip byte) {
		if len(data) > 1<<20 {
			return
		}
		data = bytes.Clone(data)
		if at >= 0 && at < len(data) {
			data[at] ^= flip
		}
		got, bad := scanBytes(t, data)
		padded := append(bytes.Clone(data), make([]byte, (logPageSize-len(data)%logPageSize)%logPageSize)...)
		r := wlog.NewReader(bytes.NewReader(padded))
		var want [][]byte
		for r.Next() {
			want = append(want, bytes.Clone(r.Record()))
		}
		if r.Err() == nil {
			require.Empty(t, bad, "stock reads it all")
			require.Len(t, got, len(want))
		} else {
			require.NotEmpty(t, bad, "stock stops: %v", r.Err())
		}
		require.GreaterOrEqual(t, len(got), len(want))
		for i := range want {
			require.True(t, bytes.Equal(want[i], got[i]), "record %d", i)
		}
		last := int64(0)
		for i, b := range bad {
			require.LessOrEqual(t, last, b.off)
			require.LessOrEqual(t, b.off, b.end)
			require.Equal(t, i == len(bad)-1 && b.end == int64(len(data)), b.tail || b.end == int64(len(data)))
			last = b.end
		}
	})
}

func TestScanLosesOneRecordForOneFlippedByte(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	want := randomRecords(r, 200, 3000)
	data := writeSegment(t, compression.None, want)
	for range 300 {
		off := r.IntN(len(data) - 1)
		broken := bytes.Clone(data)
		broken[off] ^= byte(1 + r.IntN(255))
		got, bad := scanBytes(t, broken)
		if len(bad) == 0 {
			// The first byte of padding may hold flags; stock does not mind either.
			require.Equal(t, want, got)
			continue
		}
		require.Len(t, bad, 1)
		require.LessOrEqual(t, bad[0].off, int64(off))
		require.Less(t, int64(off), bad[0].end)
		// All records but those of the stretch are read, in order. A broken length costs the rest of its page.
		lost := len(want) - len(got)
		require.Positive(t, lost)
		require.LessOrEqual(t, bad[0].end-bad[0].off, int64(2*logPageSize))
		i := 0
		for i < len(got) && bytes.Equal(got[i], want[i]) {
			i++
		}
		for ; i < len(got); i++ {
			require.True(t, bytes.Equal(got[i], want[i+lost]))
		}
	}
}
