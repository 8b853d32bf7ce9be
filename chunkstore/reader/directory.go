package reader

import (
	"context"
	"errors"
	"fmt"

	"github.com/duramendb/duramen/chunkstore/cache"
	"github.com/duramendb/duramen/chunkstore/index"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

// directory is the directory of a block's sidecar and which sidecar it is of.
type directory struct {
	*index.Directory

	object cache.Object // the sidecar
	size   int64        // of the directory at its end
	// version is the sidecar's footer, whose checksums cover all of the sidecar: pages of one that was built anew are
	// others.
	version [index.FooterSize]byte
}

func (d *directory) bytes() int64 { return d.Directory.Bytes() }

// only is a directory of some pages, small enough for a query to keep.
func (d *directory) only(numbers []int) *directory {
	out := *d
	out.Directory = d.Only(numbers)
	return &out
}

// directory returns the directory of a block, from memory or else with one read. A sidecar that is missing or cannot be
// read is built first.
func (l *Local) directory(ctx context.Context, tenant string, b manifest.Block) (*directory, error) {
	return l.directories.Get(ctx, blockKey{tenant, b.ULID}, func(ctx context.Context) (*directory, error) {
		if info, ok := l.suspect(blockKey{tenant, b.ULID}); ok {
			b.SidecarBytes, b.DirectoryBytes = info.SidecarBytes, info.DirectoryBytes
			d, err := l.ensureDirectory(ctx, tenant, b)
			if err == nil {
				l.acquit(blockKey{tenant, b.ULID})
			}
			return d, err
		}
		info := SidecarInfo{b.SidecarBytes, b.DirectoryBytes}
		if info.DirectoryBytes > 0 {
			d, err := l.readDirectory(ctx, tenant, b, info, false)
			if err == nil || !errors.Is(err, ErrGone) && !errors.Is(err, ErrDamaged) {
				return d, err
			}
			l.log.Warn("sidecar cannot be read, seeing to a new one", "tenant", tenant, "block", b.ULID, "err", err)
		}
		return l.ensureDirectory(ctx, tenant, b)
	})
}

// ensureDirectory returns the directory of a sidecar that Sidecars vouches for.
func (l *Local) ensureDirectory(ctx context.Context, tenant string, b manifest.Block) (*directory, error) {
	l.metrics.ensured.Inc()
	info, err := l.sidecars.Ensure(ctx, tenant, b)
	if err != nil {
		return nil, l.failed(objectError(tenant, b.ULID, sidecarKey(tenant, b.ULID), l.lateError(err)))
	}
	return l.readDirectory(ctx, tenant, b, info, true)
}

// accuse makes a block's sidecar, of which d is the directory, a suspect. When another one is known by now, d was of the one
// before.
func (l *Local) accuse(key blockKey, d *directory) {
	if known, ok := l.directories.Peek(key); ok && known.version != d.version {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.suspects[key] = SidecarInfo{d.object.Size, d.size}
	l.directories.Discard(key)
}

func (l *Local) suspect(key blockKey) (SidecarInfo, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	info, ok := l.suspects[key]
	return info, ok
}

func (l *Local) acquit(key blockKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.suspects, key)
}

// readDirectory reads and parses the directory at the end of a sidecar, once more past the caches when it is damaged;
// fresh reads it past them at once.
func (l *Local) readDirectory(
	ctx context.Context, tenant string, b manifest.Block, info SidecarInfo, fresh bool,
) (*directory, error) {
	obj := cache.Object{Key: sidecarKey(tenant, b.ULID), Size: info.SidecarBytes}
	span := cache.Span{Offset: info.SidecarBytes - info.DirectoryBytes, Length: info.DirectoryBytes}
	// Directories that are read but not yet in the cache take memory that no budget knows.
	select {
	case l.gate <- struct{}{}:
		defer func() { <-l.gate }()
	case <-ctx.Done():
		return nil, objectError(tenant, b.ULID, obj.Key, l.lateError(ctx.Err()))
	}
	for ; ; fresh = true {
		bufs, err := l.readObject(ctx, tenant, b.ULID, obj, []cache.Span{span}, fresh)
		if err != nil {
			return nil, err
		}
		d, err := l.parseDirectory(obj, bufs[0])
		if err == nil {
			return d, nil
		}
		if fresh {
			return nil, l.failed(objectError(tenant, b.ULID, obj.Key, err))
		}
		l.metrics.refetches.Inc()
	}
}

func (l *Local) parseDirectory(obj cache.Object, data []byte) (d *directory, err error) {
	defer recovered(&err)
	size, err := index.DirectorySize(data)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	case size != int64(len(data)):
		return nil, fmt.Errorf("%w: its directory has %d bytes instead of %d", ErrDamaged, size, len(data))
	}
	parsed, err := index.ParseDirectory(l.dec, data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	d = &directory{Directory: parsed, object: obj, size: size}
	copy(d.version[:], data[len(data)-index.FooterSize:])
	return d, nil
}

// failed counts a failure to read an object.
func (l *Local) failed(err error) error {
	if err != nil && !isContextError(err) {
		l.metrics.failures.WithLabelValues(errkind.Of(err).String()).Inc()
	}
	return err
}
