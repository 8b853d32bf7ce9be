package blockcheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
)

// Source is where a block lies. Both methods are called by one goroutine at a time.
type Source interface {
	// List returns the sizes of the block's files by their names relative to the block, with slashes.
	List(ctx context.Context) (map[string]int64, error)
	// ReadAt fills p from byte off of a file. Fewer bytes than asked for are an error.
	ReadAt(ctx context.Context, name string, p []byte, off int64) error
}

// InBucket is the block of a tenant in a bucket, read by ranges.
func InBucket(bkt bucket.Bucket, tenantID string, id ulid.ULID) Source {
	return bucketSource{bkt, block.Prefix(tenantID, id)}
}

type bucketSource struct {
	bkt    bucket.Bucket
	prefix string
}

func (s bucketSource) List(ctx context.Context) (map[string]int64, error) {
	files := map[string]int64{}
	err := s.bkt.List(ctx, s.prefix, true, func(o bucket.Object) error {
		files[strings.TrimPrefix(o.Key, s.prefix)] = o.Size
		return nil
	})
	return files, err
}

// attempts is how often a range is asked for. Backends repeat requests that fail, but not a body that breaks off.
const attempts = 3

func (s bucketSource) ReadAt(ctx context.Context, name string, p []byte, off int64) (err error) {
	for range attempts {
		if err = s.readOnce(ctx, name, p, off); err == nil || errors.Is(err, bucket.ErrNotFound) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (s bucketSource) readOnce(ctx context.Context, name string, p []byte, off int64) error {
	body, err := s.bkt.GetRange(ctx, s.prefix+name, off, int64(len(p)))
	if err != nil {
		return err
	}
	n, err := io.ReadFull(body, p)
	if err := errors.Join(err, body.Close()); err != nil {
		return fmt.Errorf("read %s: %d of %d bytes at %d: %w", s.prefix+name, n, len(p), off, err)
	}
	return nil
}

// InDirectory is a block in a folder of the local disk.
func InDirectory(dir string) Source { return directorySource(dir) }

type directorySource string

func (s directorySource) List(context.Context) (map[string]int64, error) {
	files := map[string]int64{}
	err := filepath.WalkDir(string(s), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(string(s), path)
		files[filepath.ToSlash(name)] = info.Size()
		return err
	})
	return files, err
}

func (s directorySource) ReadAt(_ context.Context, name string, p []byte, off int64) error {
	f, err := os.Open(filepath.Join(string(s), filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	_, err = f.ReadAt(p, off)
	return errors.Join(err, f.Close())
}
