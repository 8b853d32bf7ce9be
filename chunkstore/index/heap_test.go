package index

import (
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestBytesAreWhatTheHeapHolds: caches are bounded by what Bytes says, so it must not say much less than the truth.
func TestBytesAreWhatTheHeapHolds(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector's own memory is on the heap")
	}
	f := newFixture(t, rand.New(rand.NewPCG(8, 8)), "upper", 4000, 4)
	const copies = 20
	compare := func(what string, one func() (any, func() int64)) {
		var before, after runtime.MemStats
		kept, sizes := make([]any, copies), make([]func() int64, copies)
		runtime.GC()
		runtime.GC() // what a finaliser held
		runtime.ReadMemStats(&before)
		for i := range kept {
			kept[i], sizes[i] = one()
		}
		runtime.GC()
		runtime.GC() // what a finaliser held
		runtime.ReadMemStats(&after)
		said := int64(0)
		for _, size := range sizes {
			said += size()
		}
		heap := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		t.Logf("%s: heap %d bytes, Bytes %d: %.2f times", what, heap/copies, said/copies, float64(heap)/float64(said))
		require.LessOrEqual(t, float64(heap), 1.2*float64(said), what)
		require.Greater(t, float64(heap), 0.6*float64(said), what)
		runtime.KeepAlive(kept)
	}
	directory := f.sidecar[len(f.sidecar)-int(directorySize(t, f)):]
	parse := func() *Directory {
		d, err := ParseDirectory(f.dec, append([]byte(nil), directory...))
		require.NoError(t, err)
		return d
	}
	compare("directory", func() (any, func() int64) { d := parse(); return d, d.Bytes })
	compare("directory whose values were asked for", func() (any, func() int64) {
		d := parse()
		for _, name := range d.LabelNames() {
			_, err := d.LabelValues(f.dec, name)
			require.NoError(t, err)
		}
		return d, d.Bytes
	})
	compare("pages", func() (any, func() int64) {
		pages := make([]*Page, f.directory.Pages())
		for i := range pages {
			pages[i] = f.page(t, i)
		}
		return pages, func() int64 {
			n := int64(0)
			for _, p := range pages {
				n += p.Bytes()
			}
			return n
		}
	})
}

func directorySize(t *testing.T, f *fixture) int64 {
	t.Helper()
	n, err := DirectorySize(f.sidecar)
	require.NoError(t, err)
	return n
}
