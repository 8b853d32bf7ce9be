package cache

import (
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/bits"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// The sizes of slots: an eviction frees one, so a small cache has small ones, and a large one not too many files.
	minSlotBytes = 1 << 20
	maxSlotBytes = 64 << 20
	minSlots     = 128
	maxSlots     = 4096
	// slotExtentBytes is the mean extent that fills a slot. With smaller ones it is full by their number, which bounds
	// the memory of the index to 72 bytes for each 8 KiB of disk, or 1 %.
	slotExtentBytes = 8 << 10
	// maxExtents bounds the index of very large caches, to about 300 MiB.
	maxExtents = 4 << 20
	// watchInterval is how often the free space of the volume is looked at.
	watchInterval = time.Minute
)

// Disk keeps ranges of objects on local disk, within a number of bytes, over restarts and crashes. What lies there is
// checked by its CRC whenever it is read. It never fails a caller: a disk that is full, slow to open, damaged or gone
// means that bytes are not found. Safe for concurrent use.
//
// Extents go behind one another into files of fixed size, the slots, and leave with their slot. New ones go into slots
// that leave first; those that were found again by then are copied over to the main slots, or their whole slot becomes one
// when they are most of it, and those that come back soon after they left go there at once. So what is read once, however
// much it is, does not push out what is read often. This is S3-FIFO (Yang et al., FIFO queues are all you need for cache
// eviction, SOSP 2023) with slots in place of objects.
type Disk struct {
	dir        string
	maxBytes   int64
	slotBytes  int64
	maxExtents int
	perSlot    int // records
	minFree    int64
	env        diskEnv
	log        *slog.Logger
	metrics    *diskMetrics
	health     diskHealth
	buffers    bufferPool

	lock    *os.File
	stop    chan struct{}
	loaded  chan struct{}
	wg      sync.WaitGroup // of the goroutine that OpenDisk starts; Close waits for it
	closing sync.Once

	// rotating is held while slots are made and evicted. It is taken before mu.
	rotating sync.Mutex

	mu     sync.Mutex
	index  diskIndex
	ghosts *ghosts
	slots  [numClasses][]*slot // oldest first
	active [numClasses]*slot   // where records are appended; nil until there is one
	used   int64               // what all slots are charged
	next   uint64              // number of the next slot
}

// OpenDisk locks cfg.Dir, which it creates when missing, and returns the cache that lies there. Only names of files are
// read before it returns. What they hold is found out in the background, newest first, a few seconds for 10 GiB; until
// then it is not found. cfg.MaxBytes is not 0. Close the cache.
//
// ErrLocked when another process uses the directory.
func OpenDisk(cfg DiskConfig, log *slog.Logger, reg prometheus.Registerer) (*Disk, error) {
	return openDisk(cfg, log, reg, realDisk())
}

func openDisk(cfg DiskConfig, log *slog.Logger, reg prometheus.Registerer, env diskEnv) (_ *Disk, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Dir == "" || cfg.MaxBytes == 0 {
		return nil, fmt.Errorf("open disk cache: directory %q, %d bytes: both are needed", cfg.Dir, cfg.MaxBytes)
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("open disk cache: %w", err)
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open disk cache: %w", err)
	}
	d := &Disk{
		dir: cfg.Dir, minFree: cfg.MinFreeBytes, env: env, log: log, metrics: newDiskMetrics(reg), lock: lock,
		stop: make(chan struct{}), loaded: make(chan struct{}), index: diskIndex{places: map[place]*contents{}},
	}
	d.health = diskHealth{now: env.now, log: log, metrics: d.metrics, said: map[string]time.Time{}}
	old, err := d.list()
	if err == nil {
		err = d.size(cfg.MaxBytes)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open disk cache: %w", err), lock.Close())
	}
	d.wg.Go(func() { d.run(old) })
	return d, nil
}

// size derives the sizes of everything from the most bytes to use. The slots that exist are known.
func (d *Disk) size(maxBytes int64) error {
	if maxBytes == AutoDiskBytes {
		free, _, err := d.env.volume(d.dir)
		if err != nil {
			return fmt.Errorf("free space of %s: %w", d.dir, err)
		}
		maxBytes = max(min(autoDiskBytes, (free+d.used)/autoDiskShare), minDiskBytes)
	}
	d.maxBytes = maxBytes
	d.slotBytes = min(max(powerOfTwo(maxBytes/minSlots), minSlotBytes), maxSlotBytes)
	d.slotBytes = max(d.slotBytes, powerOfTwo(maxBytes/maxSlots))
	d.maxExtents = int(min(maxBytes/slotExtentBytes, maxExtents))
	d.perSlot = d.maxExtents / int(maxBytes/d.slotBytes)
	d.ghosts = newGhosts(int(min(max(maxBytes/granule/4, 1<<10), 1<<17)))
	d.metrics.limit.Set(float64(maxBytes))
	d.count()
	return nil
}

// powerOfTwo returns the largest one that is at most n, at least 1.
func powerOfTwo(n int64) int64 { return 1 << max(0, bits.Len64(uint64(n))-1) }

// Loaded is closed when everything that was there at the start can be found.
func (d *Disk) Loaded() <-chan struct{} { return d.loaded }

// Close ends the use of the directory. Reads that run meanwhile, and later ones, find nothing.
func (d *Disk) Close() error {
	var err error
	d.closing.Do(func() {
		close(d.stop)
		d.wg.Wait()
		d.rotating.Lock()
		defer d.rotating.Unlock()
		d.mu.Lock()
		defer d.mu.Unlock()
		for class := range d.slots {
			for _, s := range d.slots[class] {
				closeSlot(s.detach())
			}
			d.slots[class], d.active[class] = nil, nil
		}
		d.index = diskIndex{places: map[place]*contents{}}
		err = d.lock.Close()
	})
	return err
}

// run reads what is there, then watches the volume until the cache is closed.
func (d *Disk) run(old []*slot) {
	d.load(old)
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			d.giveWay()
		case <-d.stop:
			return
		}
	}
}

// Read fills dst with the bytes of obj at offset off as far as they are on disk, and returns the spans of obj that it
// lacks, in order. What dst holds there is undefined.
func (d *Disk) Read(obj Object, off int64, dst []byte) (missing []Span) {
	whole := Span{off, int64(len(dst))}
	if d.health.off() {
		return []Span{whole}
	}
	d.mu.Lock()
	found := d.index.find(obj, whole)
	for _, p := range found {
		p.x.slot.pins++
	}
	d.mu.Unlock()

	at := off
	for _, p := range found {
		if !d.fill(obj, p, dst[p.Offset-off:][:p.Length]) {
			continue
		}
		if p.Offset > at {
			missing = append(missing, Span{at, p.Offset - at})
		}
		at = p.end()
	}
	if at < whole.end() {
		missing = append(missing, Span{at, whole.end() - at})
	}
	d.unpin(found)
	lacking := int64(0)
	for _, s := range missing {
		lacking += s.Length
	}
	d.metrics.hitBytes.Add(float64(whole.Length - lacking))
	d.metrics.missBytes.Add(float64(lacking))
	return missing
}

// fill reads p into dst and checks it. An extent that cannot be read is taken out of the index.
func (d *Disk) fill(obj Object, p piece, dst []byte) bool {
	whole := dst
	if len(dst) < int(p.x.length) {
		buf := d.buffers.get()
		defer d.buffers.put(buf)
		whole = buf.b[:p.x.length]
	}
	n, err := p.x.slot.file.ReadAt(whole, int64(p.x.at))
	switch {
	case n == len(whole) && crc32.Checksum(whole, castagnoli) == p.x.crc:
		copy(dst, whole[p.Offset-p.x.offset:]) // onto itself when dst is the whole
		return true
	case n < len(whole) && err != nil && !isEOF(err):
		d.health.failed("read", err)
	default: // cut off or changed
		d.metrics.damaged.Inc()
		defer d.health.say("damaged extent in the disk cache; it is read from the bucket", "object", obj.Key)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.index.dropExtent(obj, p.x)
	return false
}

func (d *Disk) unpin(found []piece) {
	var files []slotFile
	d.mu.Lock()
	for _, p := range found {
		if f := p.x.slot.release(); f != nil {
			files = append(files, f)
		}
	}
	d.mu.Unlock()
	for _, f := range files {
		closeSlot(f)
	}
}

// Write keeps data, the bytes of obj at offset off, or does not.
func (d *Disk) Write(obj Object, off int64, data []byte) {
	if len(obj.Key) > maxKey || obj.Key == "" {
		return
	}
	for len(data) > 0 {
		n := min(int64(len(data)), granule-off%granule)
		if d.health.off() || !d.write(obj, off, data[:n]) {
			d.metrics.dropped.Add(float64(len(data)))
			return
		}
		off, data = off+n, data[n:]
	}
}

// write keeps one extent. It reports whether going on makes sense.
func (d *Disk) write(obj Object, off int64, data []byte) bool {
	d.mu.Lock()
	if d.index.has(obj, Span{off, int64(len(data))}) {
		d.mu.Unlock()
		return true
	}
	c := small
	if d.ghosts.take(obj, off) {
		c = main
	}
	d.mu.Unlock()
	return d.put(c, obj, off, data, d.reserve) == nil
}

// put appends a record to a slot of class c and adds it to the index. reserve finds room for it.
func (d *Disk) put(
	c class, obj Object, off int64, data []byte, reserve func(class, int64) (*slot, int64, error),
) error {
	buf := d.buffers.get()
	defer d.buffers.put(buf)
	var r record
	buf.b, r = appendRecord(buf.b[:0], obj, off, data)
	s, at, err := reserve(c, int64(len(buf.b)))
	if err != nil {
		if !errors.Is(err, errNoRoom) {
			d.health.failed("create", err)
		}
		return err
	}
	if _, err = s.file.WriteAt(buf.b, at); err != nil {
		d.health.failed("write", err)
	} else {
		d.health.succeeded()
	}
	d.mu.Lock()
	switch {
	case err != nil:
		d.seal(s) // a hole, behind which a restart would find nothing
	case !s.gone:
		d.index.insert(obj, extent{offset: off, slot: s, at: uint32(at + r.at), length: r.length, crc: r.crc}, false)
		d.metrics.written.Add(float64(len(data)))
		d.count()
	}
	file := s.release()
	d.mu.Unlock()
	closeSlot(file)
	return err
}

// Drop forgets the bytes of obj in s, and some around them: they did not pass the checks of who read them.
func (d *Disk) Drop(obj Object, s Span) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.index.drop(obj, s)
	d.count()
}

// count shows the gauges what there is. The lock is held, or nobody else knows d yet.
func (d *Disk) count() {
	d.metrics.used.Set(float64(d.used))
	d.metrics.extents.Set(float64(d.index.extents))
	d.metrics.indexBytes.Set(float64(d.index.bytes()))
}

// bufferPool lends buffers for a record.
type bufferPool struct{ pool sync.Pool }

type buffer struct{ b []byte }

func (p *bufferPool) get() *buffer {
	if b, ok := p.pool.Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, maxRecord)}
}

func (p *bufferPool) put(b *buffer) {
	b.b = slices.Grow(b.b[:0], maxRecord)[:maxRecord]
	p.pool.Put(b)
}
