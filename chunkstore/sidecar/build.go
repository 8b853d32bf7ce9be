package sidecar

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/index"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

const (
	// attempts is how often a body that breaks off is asked for again, from where it broke off.
	attempts = 4
	// readings is how often an index that looks damaged is read: it may have been damaged on its way.
	readings = 2
)

// objects are the sizes of what a block has in the bucket.
type objects struct {
	index    int64
	segments block.Segments
	meta     bool
}

// objects lists the block. One without an index, or with a gap in its chunk files, wraps bucket.ErrNotFound.
func (m *Maker) objects(ctx context.Context, key blockKey) (objects, error) {
	var o objects
	prefix := block.Prefix(key.tenant, key.id)
	err := m.bkt.List(ctx, prefix, true, func(obj bucket.Object) error {
		name := strings.TrimPrefix(obj.Key, prefix)
		n, isSegment := block.ParseSegmentName(name)
		switch {
		case isSegment && n != len(o.segments)+1:
			return fmt.Errorf("%w: %s%s", bucket.ErrNotFound, prefix, block.SegmentName(len(o.segments)+1))
		case isSegment:
			o.segments = append(o.segments, obj.Size)
		case name == block.IndexName:
			o.index = obj.Size
		case name == block.MetaName:
			o.meta = true
		}
		return nil
	})
	if err == nil && o.index == 0 {
		err = fmt.Errorf("%w: %s%s", bucket.ErrNotFound, prefix, block.IndexName)
	}
	return o, unavailable(err)
}

// find is block.FindSidecar, and looks into every page when the entry has sizes: see Ensure.
func (m *Maker) find(ctx context.Context, key blockKey, b manifest.Block, o objects) (block.Sidecar, error) {
	s, d, err := block.OpenSidecar(ctx, m.bkt, key.tenant, b, o.segments)
	if err != nil || b.SidecarBytes == 0 {
		return s, err
	}
	return s, m.readPages(ctx, block.Key(key.tenant, key.id, block.SidecarName), s, d)
}

// readPages reads a sidecar from begin to end and decodes all of its pages and of the directory's sections.
func (m *Maker) readPages(ctx context.Context, key string, s block.Sidecar, d *index.Directory) (err error) {
	dec, err := index.NewDecoder()
	if err != nil {
		return err
	}
	defer dec.Close()
	body, err := m.bkt.GetRange(ctx, key, 0, s.Bytes-s.DirectoryBytes)
	if errors.Is(err, bucket.ErrNotFound) {
		return fmt.Errorf("%w: %w", block.ErrNoSidecar, err)
	}
	if err != nil {
		return unavailable(err)
	}
	defer func() { err = errors.Join(err, unavailable(body.Close())) }()
	pages := make([]int, d.Pages())
	for i := range pages {
		pages[i] = i
	}
	slices.SortFunc(pages, func(a, b int) int { return cmp.Compare(d.Page(a).Offset, d.Page(b).Offset) })
	r, at := bufio.NewReaderSize(body, 1<<20), int64(0)
	for _, i := range pages {
		p := d.Page(i)
		if p.Offset < at {
			return fmt.Errorf("%w: pages overlap at byte %d", block.ErrNoSidecar, at)
		}
		packed := make([]byte, p.Length)
		_, err := io.CopyN(io.Discard, r, p.Offset-at)
		if err == nil {
			_, err = io.ReadFull(r, packed)
		}
		if err != nil {
			return unavailable(fmt.Errorf("read page %d of %s: %w", i, key, err))
		}
		at = p.Offset + p.Length
		if _, err := d.DecodePage(dec, i, packed); err != nil {
			return fmt.Errorf("%w: page %d: %w", block.ErrNoSidecar, i, err)
		}
	}
	for _, name := range d.LabelNames() {
		if _, err := d.LabelValues(dec, name); err != nil {
			return fmt.Errorf("%w: label %s: %w", block.ErrNoSidecar, name, err)
		}
	}
	return nil
}

// build reads the index, builds the sidecar and sends it.
func (m *Maker) build(ctx context.Context, key blockKey, b manifest.Block, o objects) (s block.Sidecar, err error) {
	if err := m.room(o); err != nil {
		return s, err
	}
	out, err := os.CreateTemp(m.cfg.Dir, "sidecar-*")
	if err != nil {
		return s, errkind.Wrap(errkind.Unavailable, err)
	}
	remove := true
	defer func() {
		err = errors.Join(err, out.Close())
		if remove {
			err = errors.Join(err, os.Remove(out.Name()))
		}
	}()
	for range readings {
		if s, err = m.buildOnce(ctx, out, key, b, o); errkind.Of(err) != errkind.Corrupt {
			break
		}
		if err := rewind(out); err != nil {
			return s, errkind.Wrap(errkind.Unavailable, err)
		}
	}
	if err != nil {
		return s, m.explain(ctx, key, err)
	}
	k := keptFile{Sidecar: s, path: out.Name()}
	if err := m.send(ctx, key, k); err != nil {
		m.metrics.notSent.Inc()
		m.log.Warn("sidecar not uploaded, kept on the local disk", "tenant", key.tenant, "block", key.id, "err", err)
		err := m.kept.add(block.Key(key.tenant, key.id, block.SidecarName), k)
		remove = err != nil
		return s, err
	}
	m.annotate(key, s)
	return s, nil
}

// explain tells a damaged block from one that is being deleted: that begins with its meta.json.
func (m *Maker) explain(ctx context.Context, key blockKey, err error) error {
	if errkind.Of(err) != errkind.Corrupt {
		return unavailable(err)
	}
	name := block.Key(key.tenant, key.id, block.MetaName)
	if _, gone := m.bkt.Stat(ctx, name); errors.Is(gone, bucket.ErrNotFound) {
		return errkind.New(errkind.Unavailable, "%w (%s)", gone, err.Error())
	}
	return err
}

func (m *Maker) buildOnce(
	ctx context.Context, out *os.File, key blockKey, b manifest.Block, o objects,
) (s block.Sidecar, err error) {
	name, err := m.fetch(ctx, block.Key(key.tenant, key.id, block.IndexName), o.index)
	if err != nil {
		return s, err
	}
	s, err = block.BuildSidecar(ctx, out, name, b, o.segments)
	return s, errors.Join(err, os.Remove(name))
}

// fetch copies an object to a new file and returns its name.
func (m *Maker) fetch(ctx context.Context, key string, size int64) (name string, err error) {
	f, err := os.CreateTemp(m.cfg.Dir, "index-*")
	if err != nil {
		return "", err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	at := int64(0)
	for range attempts {
		var n int64
		n, err = m.fetchFrom(ctx, f, key, at, size)
		at += n
		if at == size || errors.Is(err, bucket.ErrNotFound) || ctx.Err() != nil {
			break
		}
	}
	if err == nil && at != size {
		err = fmt.Errorf("received %d of %d bytes of %s", at, size, key)
	}
	if at == size {
		err = nil // what follows the last byte is nothing
	}
	return f.Name(), err
}

func (m *Maker) fetchFrom(ctx context.Context, f *os.File, key string, at, size int64) (int64, error) {
	body, err := m.bkt.GetRange(ctx, key, at, size-at)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(f, body)
	m.metrics.indexBytes.Add(float64(n))
	return n, errors.Join(err, body.Close())
}

// send puts a sidecar into the bucket and verifies its size, twice at most.
func (m *Maker) send(ctx context.Context, key blockKey, k keptFile) (err error) {
	name := block.Key(key.tenant, key.id, block.SidecarName)
	for range 2 {
		if err = m.sendOnce(ctx, name, k); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (m *Maker) sendOnce(ctx context.Context, key string, k keptFile) error {
	f, err := os.Open(k.path)
	if err != nil {
		return err
	}
	err = m.bkt.Put(ctx, key, f, k.Bytes)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	o, err := m.bkt.Stat(ctx, key)
	if err == nil && o.Size != k.Bytes {
		err = fmt.Errorf("%s has %d bytes after %d were sent", key, o.Size, k.Bytes)
	}
	return err
}

// room says whether the disk has room for building. A sidecar is a small part of the index it is made of.
func (m *Maker) room(o objects) error {
	if err := errors.Join(m.empty(), os.MkdirAll(m.cfg.Dir, 0o750)); err != nil {
		return errkind.New(errkind.Unavailable, "folder for building: %w", err)
	}
	free, err := m.free(m.cfg.Dir)
	if err != nil {
		return errkind.New(errkind.Unavailable, "free space of %s: %w", m.cfg.Dir, err)
	}
	if need := 2*o.index + m.cfg.ReserveBytes; free < need {
		return errkind.New(errkind.Unavailable, "volume of %s has %d bytes free; building from an index of %d bytes needs %d",
			m.cfg.Dir, free, o.index, need)
	}
	return nil
}

func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail * uint64(st.Bsize)), nil //nolint:gosec // no volume has 2^63 bytes
}

func rewind(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return errors.Join(err, f.Truncate(0))
}

// unavailable gives an error of the bucket or the disk its kind.
func unavailable(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return errkind.Wrap(errkind.Unavailable, err)
}
