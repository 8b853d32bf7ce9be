package cache

import (
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

func TestRangesAreReadOnce(t *testing.T) {
	s, dir := newStore(), t.TempDir()
	obj, data := s.put(t, "tenant/block/chunks/000001", 10<<20)
	d := mustOpen(t, dir, 64<<20, roomy())
	r := newRanges(s, d)
	spans := []Span{{100, 1000}, {300_000, 3 << 20}, {9 << 20, 1 << 20}}
	mustRead(t, r, obj, data, spans...)
	require.NotEmpty(t, s.asked())
	mustRead(t, r, obj, data, spans...)
	mustRead(t, r, obj, data, Span{500, 5}, Span{1 << 20, 1 << 20})
	require.Empty(t, s.asked(), "the bucket is not asked again")

	// Of a longer range only the rest is fetched.
	mustRead(t, r, obj, data, Span{0, 2000})
	require.Equal(t, []Span{{0, 2000}}, s.asked(), "two small rests are one request")
	mustRead(t, r, obj, data, Span{299_990, 3<<20 + 20})
	require.ElementsMatch(t, []Span{{299_990, 10}, {300_000 + 3<<20, 10}}, s.asked())

	// The same after a restart.
	require.NoError(t, d.Close())
	d = mustOpen(t, dir, 64<<20, roomy())
	r = newRanges(s, d)
	mustRead(t, r, obj, data, spans...)
	require.Empty(t, s.asked())
	require.Equal(t, 1000.0+3<<20+1<<20, testutil.ToFloat64(r.metrics.fromDisk))
}

func TestRangesRefetchPastTheDisk(t *testing.T) {
	s := newStore()
	obj, data := s.put(t, "o", 100_000)
	d := mustOpen(t, t.TempDir(), 64<<20, roomy())
	r := newRanges(s, d)
	// What the disk has is whole and wrong: it came so from the bucket.
	wrong := make([]byte, 1000)
	d.Write(obj, 500, wrong)
	got, err := r.Read(t.Context(), obj, []Span{{600, 100}})
	require.NoError(t, err)
	require.Equal(t, wrong[:100], got[0])

	got, err = r.Refetch(t.Context(), obj, []Span{{600, 100}})
	require.NoError(t, err)
	require.Equal(t, data[600:700], got[0])
	require.Equal(t, []Span{{600, 100}}, s.asked())
	mustRead(t, r, obj, data, Span{600, 100})
	require.Empty(t, s.asked(), "what came has taken its place")
	mustRead(t, r, obj, data, Span{500, 1000})
}

func TestRangesGoOnWithDamageOnDisk(t *testing.T) {
	s, dir := newStore(), t.TempDir()
	obj, data := s.put(t, "o", 5<<20)
	d := mustOpen(t, dir, 64<<20, roomy())
	r := newRanges(s, d)
	mustRead(t, r, obj, data, Span{0, obj.Size})
	s.asked()
	paths, _ := slotFiles(t, dir)
	for i, path := range paths {
		require.NoError(t, os.Truncate(path, 1<<19-int64(i)))
	}
	mustRead(t, r, obj, data, Span{0, obj.Size})
	require.NotEmpty(t, s.asked())
	mustRead(t, r, obj, data, Span{0, obj.Size})
	require.Empty(t, s.asked())
}

// TestRangesUnderConcurrency: readers of overlapping spans through a disk cache that evicts all the time.
func TestRangesUnderConcurrency(t *testing.T) {
	s := newStore()
	var objs []Object
	contents := map[Object][]byte{}
	for _, key := range []string{"a", "bb", "ccc", "dddd"} {
		obj, data := s.put(t, key, 6<<20)
		objs, contents[obj] = append(objs, obj), data
	}
	d := mustOpen(t, t.TempDir(), minDiskBytes, roomy())
	r := newRanges(s, d)
	var wg sync.WaitGroup
	for seed := range uint64(8) {
		rnd := rand.New(rand.NewPCG(4, seed))
		wg.Go(func() {
			for range 9 {
				obj := objs[rnd.IntN(len(objs))]
				spans := make([]Span, rnd.IntN(5)+1)
				for i := range spans {
					spans[i].Offset = rnd.Int64N(obj.Size)
					spans[i].Length = rnd.Int64N(min(obj.Size-spans[i].Offset, 600<<10)) + 1
				}
				mustRead(t, r, obj, contents[obj], spans...)
			}
		})
	}
	wg.Wait()
	require.Positive(t, testutil.ToFloat64(d.metrics.evicted))
	require.Positive(t, testutil.ToFloat64(r.metrics.fromDisk))
	require.Empty(t, r.flights)
}

func BenchmarkDiskHit(b *testing.B) {
	d := mustOpen(b, b.TempDir(), 256<<20, roomy())
	obj := Object{"tenant/block/chunks/000001", 64 << 20}
	keep(d, obj, 0, obj.Size)
	for _, c := range []struct {
		name string
		n    int64
	}{{"10KiB", 10 << 10}, {"8MiB", 8 << 20}} {
		b.Run(c.name, func(b *testing.B) {
			dst := make([]byte, c.n)
			b.SetBytes(c.n)
			b.ReportAllocs()
			off := int64(0)
			for b.Loop() {
				if missing := d.Read(obj, off, dst); missing != nil {
					b.Fatal(missing)
				}
				off = (off + 5<<20) % (obj.Size - c.n)
			}
		})
	}
}

func BenchmarkDiskWrite(b *testing.B) {
	d := mustOpen(b, b.TempDir(), 256<<20, roomy())
	data := make([]byte, 8<<20)
	b.SetBytes(8 << 20)
	off := int64(0)
	for b.Loop() {
		d.Write(Object{"tenant/block/chunks/000001", 1 << 50}, off, data)
		off += 8 << 20
	}
}

func BenchmarkDiskOpen(b *testing.B) {
	dir := b.TempDir()
	d := mustOpen(b, dir, 1<<30, roomy())
	for i := range int64(100_000) { // 10 KiB each
		keep(d, Object{"tenant/block/chunks/000001", 1 << 50}, i*20<<10, 10<<10)
	}
	n := d.index.extents
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		d := mustOpen(b, dir, 1<<30, roomy())
		b.StopTimer()
		if d.index.extents != n {
			b.Fatal(d.index.extents)
		}
		_ = d.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(n), "extents")
}

func BenchmarkRanges(b *testing.B) {
	s := newStore()
	obj, _ := s.put(b, "tenant/block/chunks/000001", 64<<20)
	d := mustOpen(b, b.TempDir(), 256<<20, roomy())
	spans := make([]Span, 1000) // a metric of 1,000 series
	for i := range spans {
		spans[i] = Span{int64(i) * 4 << 10, 4 << 10}
	}
	for name, r := range map[string]*Ranges{"bucket": newRanges(s, nil), "disk": newRanges(s, d)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(4 << 20)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Read(b.Context(), obj, spans); err != nil {
					b.Fatal(err)
				}
			}
			s.asked()
		})
	}
}
