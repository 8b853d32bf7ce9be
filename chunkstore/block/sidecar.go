package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/prometheus/prometheus/tsdb/fileutil"
	tsdbindex "github.com/prometheus/prometheus/tsdb/index"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/index"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

// SidecarName is the name of the block's second index, see package index. No meta.json names it among its files: it can
// be built anew at any time, in another size, by whoever needs it, and meta.json is written once. The peers need no list
// to tolerate it: they take what they know and delete all of a block's folder with it.
const SidecarName = "duramen.idx"

// Sidecar are the sizes of a sidecar in bytes: of the object, and of the directory at its end.
type Sidecar struct{ Bytes, DirectoryBytes int64 }

// Segments are the sizes of a block's chunk files in bytes, from chunks/000001 on.
type Segments []int64

// FindSidecar looks whether the bucket has a sidecar of the block b whose directory can be read, and which is of that
// block: its times, its counts where b has any, the sizes of its chunk files. nil for segments compares no sizes. Pages
// are not read. It costs two or three small requests.
//
// ErrNoSidecar: see there. A bucket that fails gives an error of kind Unavailable.
func FindSidecar(
	ctx context.Context, bkt bucket.Bucket, tenantID string, b manifest.Block, segments Segments,
) (Sidecar, error) {
	s, _, err := OpenSidecar(ctx, bkt, tenantID, b, segments)
	return s, err
}

// OpenSidecar is FindSidecar that also returns the directory.
func OpenSidecar(
	ctx context.Context, bkt bucket.Bucket, tenantID string, b manifest.Block, segments Segments,
) (Sidecar, *index.Directory, error) {
	s, d, err := openSidecar(ctx, bkt, Key(tenantID, b.ULID, SidecarName), b, segments, tailBytes)
	if err != nil {
		return Sidecar{}, nil, fmt.Errorf("sidecar of block %s: %w", b.ULID, err)
	}
	return s, d, nil
}

// tailBytes is read at first. It holds the whole directory of most blocks that an ingester cuts.
const tailBytes = 64 << 10

func openSidecar(
	ctx context.Context, bkt bucket.Bucket, key string, b manifest.Block, segments Segments, first int64,
) (Sidecar, *index.Directory, error) {
	o, err := bkt.Stat(ctx, key)
	if err != nil {
		return Sidecar{}, nil, absent(err)
	}
	s := Sidecar{Bytes: o.Size}
	tail, err := readEnd(ctx, bkt, key, o.Size, min(first, o.Size))
	if err != nil {
		return Sidecar{}, nil, absent(err)
	}
	if s.DirectoryBytes, err = index.DirectorySize(tail); err != nil {
		return Sidecar{}, nil, fmt.Errorf("%w: %w", ErrNoSidecar, err)
	}
	if s.DirectoryBytes > s.Bytes {
		return Sidecar{}, nil, fmt.Errorf("%w: it has %d bytes and a directory of %d", ErrNoSidecar, s.Bytes, s.DirectoryBytes)
	}
	if s.DirectoryBytes > int64(len(tail)) {
		if tail, err = readEnd(ctx, bkt, key, o.Size, s.DirectoryBytes); err != nil {
			return Sidecar{}, nil, absent(err)
		}
	}
	d, err := parseDirectory(tail)
	if err != nil {
		return Sidecar{}, nil, fmt.Errorf("%w: %w", ErrNoSidecar, err)
	}
	return s, d, describes(d, s, b, segments)
}

// absent makes ErrNoSidecar of an object that is not there, and gives other errors of the bucket their kind.
func absent(err error) error {
	if errors.Is(err, bucket.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrNoSidecar, err)
	}
	return unavailable(err)
}

// readEnd returns the last n bytes of an object.
func readEnd(ctx context.Context, bkt bucket.Bucket, key string, size, n int64) ([]byte, error) {
	body, err := bkt.GetRange(ctx, key, size-n, n)
	if err != nil {
		return nil, err
	}
	data := make([]byte, n)
	got, err := io.ReadFull(body, data)
	if err := errors.Join(err, body.Close()); err != nil {
		return nil, fmt.Errorf("received %d of %d bytes of %s: %w", got, n, key, err)
	}
	return data, nil
}

// describes reports as ErrNoSidecar what tells a directory from that of the block.
func describes(d *index.Directory, s Sidecar, b manifest.Block, segments Segments) error {
	wrong := func(what string, is, want any) error {
		return fmt.Errorf("%w: it says %s %v instead of %v", ErrNoSidecar, what, is, want)
	}
	switch counted := b.Series > 0 || b.Chunks > 0; {
	case d.MinTime != b.MinTime:
		return wrong("min time", d.MinTime, b.MinTime)
	case d.MaxTime != b.MaxTime:
		return wrong("max time", d.MaxTime, b.MaxTime)
	case counted && d.Series != b.Series:
		return wrong("series", d.Series, b.Series)
	case counted && d.Chunks != b.Chunks:
		return wrong("chunks", d.Chunks, b.Chunks)
	case segments != nil && !slices.Equal(d.Segments, segments):
		return wrong("chunk files of bytes", d.Segments, segments)
	}
	for i := range d.Pages() {
		if p := d.Page(i); p.Offset+p.Length > s.Bytes-s.DirectoryBytes {
			return wrong("a page ends at", p.Offset+p.Length, s.Bytes-s.DirectoryBytes)
		}
	}
	return nil
}

// BuildSidecar writes the sidecar of a block to out, an empty file, from the block's index, a file on the local disk that
// is mapped into memory and read to its end. Of b, ULID, times and counts are used.
//
// What is wrong with the index, counts included that it does not share with b, is an error of kind Corrupt. Other errors
// are those of the disk, or of ctx.
func BuildSidecar(
	ctx context.Context, out *os.File, indexFile string, b manifest.Block, segments Segments,
) (s Sidecar, err error) {
	file, err := fileutil.OpenMmapFile(indexFile)
	if err != nil {
		return Sidecar{}, fmt.Errorf("build sidecar of block %s: %w", b.ULID, err)
	}
	to := &noting{w: out}
	s, err = buildSidecar(ctx, to, mapped(file.Bytes()), b, segments)
	switch {
	case err == nil:
		err = checkBuilt(out, s, b, segments)
	case to.err == nil && ctx.Err() == nil:
		err = errkind.Wrap(errkind.Corrupt, err)
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return Sidecar{}, fmt.Errorf("build sidecar of block %s: %w", b.ULID, err)
	}
	return s, nil
}

func buildSidecar(
	ctx context.Context, w io.Writer, ix tsdbindex.ByteSlice, b manifest.Block, segments Segments,
) (s Sidecar, err error) {
	defer func() { // the decoder of a crafted or damaged index may run over its end
		if p := recover(); p != nil {
			err = fmt.Errorf("decoder panicked: %v", p)
		}
	}()
	r, err := tsdbindex.NewReader(ix, tsdbindex.DecodePostingsRaw)
	if err != nil {
		return s, err
	}
	s.Bytes, s.DirectoryBytes, err = index.Build(ctx, w, r, b.MinTime, b.MaxTime, segments)
	return s, err
}

// checkBuilt reads back the directory that was written just now.
func checkBuilt(out io.ReaderAt, s Sidecar, b manifest.Block, segments Segments) error {
	tail := make([]byte, s.DirectoryBytes)
	if _, err := out.ReadAt(tail, s.Bytes-s.DirectoryBytes); err != nil {
		return err
	}
	d, err := parseDirectory(tail)
	if err != nil {
		return err
	}
	if err := describes(d, s, b, segments); err != nil {
		return errkind.New(errkind.Corrupt, "index and meta.json contradict one another: %w", err)
	}
	return nil
}

func parseDirectory(tail []byte) (*index.Directory, error) {
	dec, err := index.NewDecoder()
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	return index.ParseDirectory(dec, tail)
}

// noting keeps the error of a writer, so that it can be told from those of what was to be written.
type noting struct {
	w   io.Writer
	err error
}

func (n *noting) Write(p []byte) (int, error) {
	done, err := n.w.Write(p)
	if err != nil {
		n.err = err
	}
	return done, err
}

// mapped is a file in memory as the TSDB's index reader takes it.
type mapped []byte

func (m mapped) Len() int                    { return len(m) }
func (m mapped) Range(start, end int) []byte { return m[start:end] }
