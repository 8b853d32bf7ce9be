package blockcheck

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// oddChunk returns a chunk with samples at all kinds of distances and of all kinds of values.
func oddChunk(t testing.TB, r *rand.Rand) []byte {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	require.NoError(t, err)
	ts, v := r.Int64N(1<<41)-1<<40, r.Float64()
	for range 1 + r.IntN(130) {
		app.Append(0, ts, v)
		switch r.IntN(8) {
		case 0:
			ts += 1 + r.Int64N(1<<r.IntN(50))
		case 1:
			ts += 60_000 + r.Int64N(40) - 20
		default:
			ts += 60_000
		}
		switch r.IntN(5) {
		case 0:
			v++
		case 1:
			v = math.Float64frombits(r.Uint64())
		case 2:
			v = r.Float64()
		}
	}
	return c.Bytes()
}

// TestScanSaysWhatTheDecoderSays of whole chunks and, where it is content, of damaged ones.
func TestScanSaysWhatTheDecoderSays(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	content := 0
	for range 5000 {
		data := oddChunk(t, r)
		whole, ok := scanXOR(data)
		require.True(t, ok)
		want, err := decodeChunk(chunkenc.EncXOR, data)
		require.NoError(t, err)
		require.Equal(t, want, whole)
		data = data[:len(data)-r.IntN(min(len(data), 3))]
		data[r.IntN(len(data))] ^= 1 << r.IntN(8)
		if compareScan(t, data) {
			content++
		}
	}
	require.Greater(t, content, 100, "some damage cannot be seen in the bits")
}

// compareScan reports whether the scan was content.
func compareScan(t testing.TB, data []byte) bool {
	t.Helper()
	got, ok := scanXOR(data)
	if !ok {
		return false
	}
	want, err := decodeChunk(chunkenc.EncXOR, data)
	require.NoError(t, err)
	require.Equal(t, want, got)
	return true
}

func FuzzScanXOR(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		f.Add(oddChunk(f, r))
	}
	f.Fuzz(func(t *testing.T, data []byte) { compareScan(t, data) })
}

func BenchmarkDecode(b *testing.B) {
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	require.NoError(b, err)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 120 {
		app.Append(0, int64(i)*60_000, float64(r.IntN(1000))/10)
	}
	for b.Loop() {
		if _, err := decode(chunkenc.EncXOR, c.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(120*b.N), "ns/sample")
}
