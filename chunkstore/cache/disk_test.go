package cache

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// roomy is the real disk of a volume that is never full.
func roomy() diskEnv {
	env := realDisk()
	env.volume = func(string) (free, size int64, err error) { return 1 << 40, 2 << 40, nil }
	return env
}

func mustOpen(t testing.TB, dir string, maxBytes int64, env diskEnv) *Disk {
	t.Helper()
	d, err := openDisk(DiskConfig{Dir: dir, MaxBytes: maxBytes}, slog.New(slog.DiscardHandler), nil, env)
	require.NoError(t, err)
	<-d.Loaded()
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// pattern is what all test objects are cut from. Its length has no divisor in common with granules and slots.
var pattern = func() []byte {
	p := make([]byte, 1_000_003)
	rand.NewChaCha8([32]byte{9}).Read(p)
	return p
}()

// content is an object whose bytes can be made up anywhere.
func content(obj Object, off, n int64) []byte {
	from := obj.Size * 7
	for _, c := range []byte(obj.Key) {
		from = (from*31 + int64(c)) % int64(len(pattern))
	}
	from = (from + off) % int64(len(pattern))
	data := make([]byte, 0, n)
	for int64(len(data)) < n {
		data = append(data, pattern[from:min(int64(len(pattern)), from+n-int64(len(data)))]...)
		from = 0
	}
	return data
}

// found returns how many of the bytes are on disk, after comparing them.
func found(t testing.TB, d *Disk, obj Object, off, n int64) int64 {
	t.Helper()
	dst := make([]byte, n)
	missing := d.Read(obj, off, dst)
	want, at, have := content(obj, off, n), off, int64(0)
	for _, m := range append(missing, Span{off + n, 0}) {
		require.LessOrEqual(t, at, m.Offset, "in order")
		if !bytes.Equal(want[at-off:m.Offset-off], dst[at-off:m.Offset-off]) {
			t.Fatalf("%s, offset %d, length %d: other bytes", obj.Key, at, m.Offset-at)
		}
		have += m.Offset - at
		at = m.end()
	}
	require.Equal(t, off+n, at)
	return have
}

func keep(d *Disk, obj Object, off, n int64) { d.Write(obj, off, content(obj, off, n)) }

// slotFiles returns the paths of the slots, oldest first within a class, and the sum of their sizes.
func slotFiles(t testing.TB, dir string) (paths []string, size int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		if _, _, ok := parseSlotName(e.Name()); ok {
			info, err := e.Info()
			require.NoError(t, err)
			paths, size = append(paths, filepath.Join(dir, e.Name())), size+info.Size()
		}
	}
	return paths, size
}

func TestDiskFindsWhatItHas(t *testing.T) {
	d := mustOpen(t, t.TempDir(), 64<<20, roomy())
	obj := Object{"tenant/block/chunks/000001", 10 << 20}
	require.Zero(t, found(t, d, obj, 0, 100))

	keep(d, obj, 1000, 100)
	require.EqualValues(t, 100, found(t, d, obj, 1000, 100), "itself")
	require.EqualValues(t, 10, found(t, d, obj, 1050, 10), "inside")
	require.EqualValues(t, 50, found(t, d, obj, 950, 100), "its beginning")
	require.EqualValues(t, 100, found(t, d, obj, 0, 1<<20), "around it")
	require.Zero(t, found(t, d, obj, 1100, 10), "behind it")
	keep(d, obj, 1100, 100)
	require.EqualValues(t, 200, found(t, d, obj, 1000, 200), "two that touch")
	keep(d, obj, 1050, 100)
	keep(d, obj, 900, 1000)
	require.EqualValues(t, 1000, found(t, d, obj, 0, 5000), "one over all of them")

	keep(d, obj, 100_000, 5<<20)
	require.EqualValues(t, 5<<20, found(t, d, obj, 100_000, 5<<20), "over many granules")
	require.EqualValues(t, 1<<20, found(t, d, obj, 3<<20+7, 1<<20))

	require.Zero(t, found(t, d, Object{obj.Key, obj.Size + 1}, 1000, 100), "another size is another object")
	require.Zero(t, found(t, d, Object{"other", obj.Size}, 1000, 100))

	d.Drop(obj, Span{1150, 1})
	require.Zero(t, found(t, d, obj, 1100, 100))
	require.EqualValues(t, 1<<20, found(t, d, obj, 3<<20, 1<<20), "the rest stays")
	keep(d, Object{strings.Repeat("k", maxKey+1), 100}, 0, 100) // no object has such a key
	d.Write(obj, 0, nil)
}

// TestDiskAgainstAModel: whatever is written, dropped and lost by restarts, what is found is right, and nothing is found
// that was never written.
func TestDiskAgainstAModel(t *testing.T) {
	for seed := range uint64(3) {
		rnd := rand.New(rand.NewPCG(11, seed))
		dir := t.TempDir()
		d := mustOpen(t, dir, 16<<20, roomy())
		objs := make([]Object, 5)
		written := map[Object][]bool{}
		for i := range objs {
			objs[i] = Object{fmt.Sprint("tenant/block/", i), 1<<20 + int64(i)}
			written[objs[i]] = make([]bool, objs[i].Size)
		}
		for range 250 {
			obj := objs[rnd.IntN(len(objs))]
			off := rnd.Int64N(obj.Size)
			n := rnd.Int64N(min(obj.Size-off, 1<<rnd.IntN(19))) + 1
			switch rnd.IntN(20) {
			case 0:
				d.Drop(obj, Span{off, n})
				require.Zero(t, found(t, d, obj, off, n))
			case 1:
				require.NoError(t, d.Close())
				d = mustOpen(t, dir, 16<<20, roomy())
			case 2, 3, 4, 5, 6, 7, 8:
				keep(d, obj, off, n)
				require.Equal(t, n, found(t, d, obj, off, n), "there is room for it")
				for i := off; i < off+n; i++ {
					written[obj][i] = true
				}
			default:
				possible := int64(0)
				for _, w := range written[obj][off : off+n] {
					if w {
						possible++
					}
				}
				require.LessOrEqual(t, found(t, d, obj, off, n), possible)
			}
		}
	}
}

func TestDiskSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, dir, 64<<20, roomy())
	objs := []Object{{"a", 5 << 20}, {"b", 100}, {"a", 200}}
	for _, o := range objs {
		keep(d, o, 0, o.Size)
	}
	for range 5 { // and another one, and what is written then goes into the same file
		require.NoError(t, d.Close())
		require.NoError(t, d.Close(), "again: nothing")
		require.Zero(t, found(t, d, objs[0], 0, 100), "closed")
		keep(d, objs[0], 0, 100)

		d = mustOpen(t, dir, 64<<20, roomy())
		for _, o := range objs {
			require.Equal(t, o.Size, found(t, d, o, 0, o.Size))
		}
		another := Object{fmt.Sprint("new ", len(objs)), 1000}
		keep(d, another, 0, 1000)
		objs = append(objs, another)
	}
	paths, size := slotFiles(t, dir)
	require.LessOrEqual(t, len(paths), int(size/d.slotBytes)+1, "a restart leaves no file half full for ever")
}

func TestDiskAfterItsDirectoryWasDeleted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "cache")
	d := mustOpen(t, dir, 64<<20, roomy())
	obj := Object{"o", 1000}
	keep(d, obj, 0, 1000)
	require.NoError(t, d.Close())
	require.NoError(t, os.RemoveAll(dir))
	d = mustOpen(t, dir, 64<<20, roomy())
	require.Zero(t, found(t, d, obj, 0, 1000))
	keep(d, obj, 0, 1000)
	require.EqualValues(t, 1000, found(t, d, obj, 0, 1000))
}

func TestDiskDropsATornTail(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, dir, 64<<20, roomy())
	whole, torn := Object{"whole", 1000}, Object{"torn", 1000}
	keep(d, whole, 0, 1000)
	keep(d, torn, 0, 1000)
	require.NoError(t, d.Close())
	paths, size := slotFiles(t, dir)
	require.Len(t, paths, 1)
	second := size - int64(recordHeader+len(torn.Key)) - 1000
	for cut := size - 1; cut >= second; cut -= 97 {
		require.NoError(t, os.Truncate(paths[0], cut))
		d = mustOpen(t, dir, 64<<20, roomy())
		require.EqualValues(t, 1000, found(t, d, whole, 0, 1000))
		require.Zero(t, found(t, d, torn, 0, 1000))
		require.NoError(t, d.Close())
	}
	// What is appended then is found after another restart.
	d = mustOpen(t, dir, 64<<20, roomy())
	keep(d, torn, 0, 1000)
	require.NoError(t, d.Close())
	d = mustOpen(t, dir, 64<<20, roomy())
	require.EqualValues(t, 1000, found(t, d, whole, 0, 1000))
	require.EqualValues(t, 1000, found(t, d, torn, 0, 1000))
}

func TestDiskFindsFlippedBits(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, dir, 64<<20, roomy())
	obj := Object{"o", 3 * granule}
	keep(d, obj, 0, obj.Size)
	paths, size := slotFiles(t, dir)
	require.Len(t, paths, 1)
	f, err := os.OpenFile(paths[0], os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	b := make([]byte, 1)
	at := size - granule/2 // in the last extent
	_, err = f.ReadAt(b, at)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{b[0] ^ 0x10}, at)
	require.NoError(t, err)

	require.EqualValues(t, 2*granule, found(t, d, obj, 0, obj.Size))
	require.Equal(t, 1.0, testutil.ToFloat64(d.metrics.damaged))
	require.Zero(t, found(t, d, obj, 2*granule+5, 10), "also a part of it; it is no longer known")
	require.Equal(t, 1.0, testutil.ToFloat64(d.metrics.damaged))
	keep(d, obj, 0, obj.Size)
	require.Equal(t, obj.Size, found(t, d, obj, 0, obj.Size))
}

// TestDiskAfterAnyChange: a byte is changed anywhere while the cache is closed; it is wrong nowhere.
func TestDiskAfterAnyChange(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, dir, 64<<20, roomy())
	obj := Object{"key", 4000}
	for off := int64(0); off < obj.Size; off += 400 {
		keep(d, obj, off, 400)
	}
	require.NoError(t, d.Close())
	paths, _ := slotFiles(t, dir)
	good, err := os.ReadFile(paths[0])
	require.NoError(t, err)
	rnd := rand.New(rand.NewPCG(5, 5))
	for range 120 {
		bad := bytes.Clone(good)
		bad[rnd.IntN(len(bad))] ^= 1 << rnd.IntN(8)
		require.NoError(t, os.WriteFile(paths[0], bad, 0o644))
		d := mustOpen(t, dir, 64<<20, roomy())
		require.Less(t, found(t, d, obj, 0, obj.Size), obj.Size)
		require.NoError(t, d.Close())
	}
}

func TestDiskKeepsItsBytes(t *testing.T) {
	dir := t.TempDir()
	const most = 16 << 20
	d := mustOpen(t, dir, most, roomy())
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range 200 {
		obj := Object{fmt.Sprint("object ", i%97), 1 << 20}
		off := rnd.Int64N(obj.Size / 2)
		keep(d, obj, off, rnd.Int64N(obj.Size/2))
		found(t, d, obj, off, 100)
		if _, size := slotFiles(t, dir); size > most {
			t.Fatalf("%d bytes of %d", size, most)
		}
		require.LessOrEqual(t, d.used, int64(most))
	}
	require.Positive(t, testutil.ToFloat64(d.metrics.evicted))
	require.Positive(t, testutil.ToFloat64(d.metrics.rescued))
	require.Zero(t, testutil.ToFloat64(d.metrics.dropped))
	require.Greater(t, d.used, int64(most/2), "and uses them")

	// What the index says is what the slots say.
	d.mu.Lock()
	defer d.mu.Unlock()
	counted := 0
	for _, c := range d.index.places {
		counted += len(c.extents)
		require.NotEmpty(t, c.extents)
		for _, x := range c.extents {
			require.False(t, x.slot.gone)
			require.Zero(t, x.slot.pins)
		}
	}
	require.Equal(t, counted, d.index.extents)
}

// TestDiskBoundsItsIndex: with the smallest extents the number of them is what is full.
func TestDiskBoundsItsIndex(t *testing.T) {
	d := mustOpen(t, t.TempDir(), minDiskBytes, roomy())
	obj := Object{"o", 1 << 40}
	for i := range int64(6_000) {
		keep(d, obj, i*100, 10)
	}
	most := int(minDiskBytes / slotExtentBytes)
	require.LessOrEqual(t, d.index.extents, most)
	require.Greater(t, d.index.extents, most/2)
	require.Equal(t, 6_000.0*10, testutil.ToFloat64(d.metrics.written))
}

func TestDiskKeepsWhatIsAskedForAgainThroughAScan(t *testing.T) {
	d := mustOpen(t, t.TempDir(), 16<<20, roomy())
	hot := make([]Object, 40) // 4 MiB, a quarter
	for i := range hot {
		hot[i] = Object{fmt.Sprint("hot ", i), 100 << 10}
		keep(d, hot[i], 0, hot[i].Size)
		found(t, d, hot[i], 0, hot[i].Size)
	}
	for i := range 400 { // 40 MiB
		o := Object{fmt.Sprint("scan ", i), 100 << 10}
		keep(d, o, 0, o.Size)
	}
	have := int64(0)
	for _, o := range hot {
		have += found(t, d, o, 0, o.Size)
	}
	require.Greater(t, have, int64(len(hot))*(100<<10)*9/10)
}

func TestDiskTakesBackWhatReturns(t *testing.T) {
	d := mustOpen(t, t.TempDir(), 16<<20, roomy())
	obj := Object{"o", 100 << 10}
	scan := 0
	push := func(n int) {
		for range n {
			scan++
			o := Object{fmt.Sprint("scan ", scan), 100 << 10}
			keep(d, o, 0, o.Size)
		}
	}
	keep(d, obj, 0, obj.Size)
	for found(t, d, Object{"scan 1", 100 << 10}, 0, 1) == 0 || scan < 10 || d.index.has(obj, Span{0, 1}) {
		push(1)
	}
	keep(d, obj, 0, obj.Size) // it comes back soon after it left
	push(300)
	require.Equal(t, obj.Size, found(t, d, obj, 0, obj.Size))
}

func TestDiskShrinks(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, dir, 32<<20, roomy())
	obj := Object{"o", 30 << 20}
	keep(d, obj, 0, obj.Size)
	require.NoError(t, d.Close())
	d = mustOpen(t, dir, 16<<20, roomy())
	_, size := slotFiles(t, dir)
	require.LessOrEqual(t, size, int64(16<<20))
	require.Greater(t, found(t, d, obj, 0, obj.Size), int64(12<<20))
}

func TestDiskTakesAShareOfTheVolume(t *testing.T) {
	env := roomy()
	env.volume = func(string) (int64, int64, error) { return 5 << 30, 100 << 30, nil }
	d := mustOpen(t, t.TempDir(), AutoDiskBytes, env)
	require.EqualValues(t, 1<<30, d.maxBytes)
	require.EqualValues(t, 8<<20, d.slotBytes)
	d = mustOpen(t, t.TempDir(), AutoDiskBytes, roomy())
	require.EqualValues(t, 10<<30, d.maxBytes)
	require.EqualValues(t, 64<<20, d.slotBytes)
	d = mustOpen(t, t.TempDir(), 1<<40, roomy())
	require.EqualValues(t, 256<<20, d.slotBytes)
}

func TestDiskIsLocked(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, dir, 16<<20, roomy())
	_, err := OpenDisk(DiskConfig{Dir: dir, MaxBytes: 16 << 20}, slog.New(slog.DiscardHandler), nil)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, d.Close())
	mustOpen(t, dir, 16<<20, roomy())
}

func TestDiskLeavesOtherFilesAlone(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"readme", "1.small", "00000000000000000001.smaller", "0000000000000000000x.small"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o644))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, slotName(3, small)), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, slotName(4, small)), []byte("no slot"), 0o644))
	mustOpen(t, dir, 16<<20, roomy())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 4+1+1, "the lock came, the file that is no slot went")
}

// TestDiskUnderConcurrency: reads, writes, drops and evictions together; run with -race.
func TestDiskUnderConcurrency(t *testing.T) {
	dir := t.TempDir()
	d := mustOpen(t, dir, minDiskBytes, roomy())
	var wg sync.WaitGroup
	for seed := range uint64(6) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(2, seed))
			for range 80 {
				obj := Object{fmt.Sprint("object ", rnd.IntN(40)), 1 << 20}
				off, n := rnd.Int64N(512<<10), rnd.Int64N(200<<10)+1
				switch rnd.IntN(12) {
				case 0:
					d.Drop(obj, Span{off, n})
				case 1:
					d.giveWay()
				default:
					if found(t, d, obj, off, n) < n {
						keep(d, obj, off, n)
					}
				}
			}
		})
	}
	wg.Wait()
	_, size := slotFiles(t, dir)
	require.LessOrEqual(t, size, int64(minDiskBytes))
	require.Positive(t, testutil.ToFloat64(d.metrics.evicted))
	for _, slots := range d.slots {
		for _, s := range slots {
			require.Zero(t, s.pins)
		}
	}
	require.NoError(t, d.Close())
	d = mustOpen(t, dir, minDiskBytes, roomy())
	require.Positive(t, d.index.extents)
}

func TestDiskConfig(t *testing.T) {
	for _, n := range []int64{0, AutoDiskBytes, minDiskBytes, 1 << 40} {
		require.NoError(t, (&DiskConfig{MaxBytes: n}).Validate())
	}
	for _, n := range []int64{-2, 1, minDiskBytes - 1} {
		require.ErrorContains(t, (&DiskConfig{MaxBytes: n}).Validate(), "chunkstore.disk_cache.max_bytes")
	}
	_, err := OpenDisk(DiskConfig{Dir: t.TempDir()}, slog.New(slog.DiscardHandler), nil)
	require.Error(t, err)
	env := roomy()
	env.volume = func(string) (int64, int64, error) { return 0, 0, errors.New("no volume") }
	_, err = openDisk(DiskConfig{Dir: t.TempDir(), MaxBytes: AutoDiskBytes}, slog.New(slog.DiscardHandler), nil, env)
	require.ErrorContains(t, err, "no volume")
}
