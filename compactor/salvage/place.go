package salvage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb/fileutil"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockcheck"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/internal/errkind"
)

// windowBytes is fetched of a chunk file at a time when it is read forwards, nearBytes when single chunks are looked up.
const (
	windowBytes = 4 << 20
	nearBytes   = 64 << 10
)

// folder is one block: its chunk files in the bucket, read by windows, and its index and sidecar on the local disk, mapped
// into memory. It is for one goroutine.
type folder struct {
	ctx    context.Context //nolint:containedctx // lives as long as the salvage that reads
	src    blockcheck.Source
	dir    string
	files  map[string]int64
	near   bool
	mapped []*fileutil.MmapFile

	open map[uint32]*segment
}

// segment is a chunk file and a piece of it.
type segment struct {
	name   string
	size   int64
	start  int64
	window []byte
}

// openFolder lists a block. dir is for what is fetched of it.
func openFolder(
	ctx context.Context, bkt bucket.Bucket, tenant string, id ulid.ULID, dir string, near bool,
) (*folder, error) {
	f := &folder{ctx: ctx, src: blockcheck.InBucket(bkt, tenant, id), dir: dir, near: near, open: map[uint32]*segment{}}
	files, err := f.src.List(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	f.files = maps.Clone(files)
	return f, nil
}

// close unmaps what was fetched. Nothing that was returned may be used any more.
func (f *folder) close() (err error) {
	for _, m := range f.mapped {
		err = errors.Join(err, m.Close())
	}
	return err
}

// fetch returns all bytes of an object, nil when it is missing or empty.
func (f *folder) fetch(name string) ([]byte, error) { return f.fetchAs(name, name) }

// fetchAs is fetch into a local file of that name.
func (f *folder) fetchAs(name, as string) ([]byte, error) {
	size := f.files[name]
	if size == 0 {
		return nil, nil
	}
	local := filepath.Join(f.dir, as)
	if err := f.copy(name, local, size); err != nil {
		return nil, err
	}
	m, err := fileutil.OpenMmapFile(local)
	if err != nil {
		return nil, unavailable(err)
	}
	f.mapped = append(f.mapped, m)
	return m.Bytes(), nil
}

func (f *folder) copy(name, local string, size int64) (err error) {
	if err := os.MkdirAll(f.dir, 0o777); err != nil {
		return unavailable(err)
	}
	out, err := os.Create(local)
	if err != nil {
		return unavailable(err)
	}
	defer func() { err = errors.Join(err, unavailable(out.Close())) }()
	buf := make([]byte, min(size, windowBytes))
	for off := int64(0); off < size; {
		piece := buf[:min(size-off, windowBytes)]
		if err := f.src.ReadAt(f.ctx, name, piece, off); err != nil {
			return unavailable(fmt.Errorf("read %s: %w", name, err))
		}
		if _, err := out.Write(piece); err != nil {
			return unavailable(err)
		}
		off += int64(len(piece))
	}
	return nil
}

// segmentSize returns the size of a chunk file, counted from 0, and 0 when it is not there.
func (f *folder) segmentSize(n uint32) int64 { return f.files[block.SegmentName(int(n)+1)] }

// segments returns how many chunk files there are, those that miss in between included.
func (f *folder) segments() (n int) {
	for name := range f.files {
		if i, ok := block.ParseSegmentName(name); ok {
			n = max(n, i)
		}
	}
	return n
}

// at returns bytes [off, off+n) of a chunk file, fewer when it ends before. They are valid until the next call.
func (f *folder) at(number uint32, off, n int64) ([]byte, error) {
	s := f.open[number]
	if s == nil {
		clear(f.open) // files are read one after another
		s = &segment{name: block.SegmentName(int(number) + 1), size: f.segmentSize(number)}
		f.open[number] = s
	}
	n = max(0, min(n, s.size-off))
	if off < s.start || off+n > s.start+int64(len(s.window)) {
		ahead := int64(windowBytes)
		if f.near {
			ahead = nearBytes
		}
		length := min(max(n, ahead), s.size-off)
		if int64(cap(s.window)) < length {
			s.window = make([]byte, length)
		}
		s.window, s.start = s.window[:length], off
		if err := f.src.ReadAt(f.ctx, s.name, s.window, off); err != nil {
			s.window = s.window[:0]
			return nil, unavailable(fmt.Errorf("read %s: %w", s.name, err))
		}
	}
	return s.window[off-s.start:][:n:n], nil
}

// unavailable gives an error of the bucket or the disk its kind, unless the caller went away.
func unavailable(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errkind.Of(err) != errkind.Internal {
		return err
	}
	return errkind.Wrap(errkind.Unavailable, err)
}
