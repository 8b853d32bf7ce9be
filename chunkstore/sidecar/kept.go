package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/internal/errkind"
)

// kept are the sidecars that were built and that the bucket did not take, such as one that may only be read.
type kept struct {
	m *Maker

	mu    sync.Mutex
	files map[string]keptFile // by key
	bytes int64
}

// keptFile is a sidecar on the local disk. It is not changed; deleting it harms nobody who has it open.
type keptFile struct {
	block.Sidecar

	path string
}

func (k *kept) get(key string) (keptFile, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f, ok := k.files[key]
	return f, ok
}

func (k *kept) add(key string, f keptFile) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if most := k.m.cfg.KeepBytes; k.bytes+f.Bytes > most {
		return errkind.New(errkind.Unavailable, "the bucket took no sidecars, and there is no room for more here: %d of %d bytes "+
			"are used", k.bytes, most)
	}
	k.files[key] = f
	k.bytes += f.Bytes
	k.m.metrics.kept.Set(float64(k.bytes))
	return nil
}

func (k *kept) remove(key string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	f, ok := k.files[key]
	if !ok {
		return nil
	}
	delete(k.files, key)
	k.bytes -= f.Bytes
	k.m.metrics.kept.Set(float64(k.bytes))
	return os.Remove(f.path)
}

// sendKept tries again to get rid of a sidecar. That the bucket still does not take it is no error.
func (m *Maker) sendKept(ctx context.Context, key blockKey, k keptFile) error {
	if err := m.sendOnce(ctx, block.Key(key.tenant, key.id, block.SidecarName), k); err != nil {
		m.metrics.notSent.Inc()
		m.log.Debug("kept sidecar not uploaded", "tenant", key.tenant, "block", key.id, "err", err)
		return ctx.Err()
	}
	m.annotate(key, k.Sidecar)
	return m.kept.remove(block.Key(key.tenant, key.id, block.SidecarName))
}

// overlay is the bucket with what is kept.
type overlay struct {
	bucket.Bucket

	kept *kept
}

// open returns the file of a key when it is kept.
func (o overlay) open(key string) (*os.File, keptFile, bool, error) {
	k, ok := o.kept.get(key)
	if !ok {
		return nil, k, false, nil
	}
	f, err := os.Open(k.path)
	if errors.Is(err, fs.ErrNotExist) { // the bucket has it now
		return nil, k, false, nil
	}
	return f, k, err == nil, err
}

// Get implements bucket.Bucket.
func (o overlay) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	f, _, ok, err := o.open(key)
	switch {
	case err != nil:
		return nil, err
	case ok:
		return f, nil
	default:
		return o.Bucket.Get(ctx, key)
	}
}

// GetRange implements bucket.Bucket.
func (o overlay) GetRange(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	f, _, ok, err := o.open(key)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return o.Bucket.GetRange(ctx, key, off, length)
	case off < 0 || length < 0:
		return nil, errors.Join(fmt.Errorf("negative range: offset %d, length %d", off, length), f.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, off, length), f}, nil
}

// Stat implements bucket.Bucket.
func (o overlay) Stat(ctx context.Context, key string) (bucket.Object, error) {
	f, k, ok, err := o.open(key)
	switch {
	case err != nil:
		return bucket.Object{}, err
	case !ok:
		return o.Bucket.Stat(ctx, key)
	}
	info, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return bucket.Object{}, err
	}
	return bucket.Object{Key: key, Size: k.Bytes, LastModified: info.ModTime()}, nil
}
