package bucketcopy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
)

// job is one block to copy, with what either bucket held of it when the copy was planned.
type job struct {
	tenant   string
	id       ulid.ULID
	src, dst sizes
}

func parse(key string) (id ulid.ULID, name string, ok bool) {
	_, id, name, ok = block.ParseKey(key)
	return id, name, ok
}

// block copies one block: chunks, index, whatever else is there, and meta.json last.
func (c *Copier) block(ctx context.Context, j job) error {
	key := block.Key(j.tenant, j.id, block.MetaName)
	raw, err := c.sourceMeta(ctx, j, key)
	if err != nil && !errors.Is(err, ErrIncomplete) {
		return err
	}
	incomplete := err
	if incomplete != nil && !c.o.AcceptIncomplete {
		return incomplete
	}
	if there, ok := j.dst[block.MetaName]; ok && raw != nil {
		meta, err := fetch(ctx, c.dst, key)
		if err != nil && !errors.Is(err, bucket.ErrNotFound) {
			return err
		}
		if err == nil && !bytes.Equal(meta, raw) {
			return fmt.Errorf("%w: %s has %d bytes there and %d in the source", ErrDiffers, key, there, len(raw))
		}
	}
	for _, name := range order(j.src) {
		err := c.object(ctx, j, name)
		if name == block.SidecarName && errors.Is(err, bucket.ErrNotFound) {
			continue // it can be done without; that the whole block has gone, meta.json will tell
		}
		if err != nil {
			return c.explain(ctx, j, err)
		}
	}
	return incomplete
}

// sourceMeta reads meta.json in the source and compares the sizes that it names. With ErrIncomplete it returns what it has.
func (c *Copier) sourceMeta(ctx context.Context, j job, key string) ([]byte, error) {
	raw, err := fetch(ctx, c.src, key)
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, c.explain(ctx, j, err)
	}
	if err != nil {
		return nil, err
	}
	m, err := block.ParseMeta(raw)
	if err != nil {
		return raw, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	if m.Thanos == nil {
		return raw, nil
	}
	for _, f := range m.Thanos.Files {
		if size, ok := j.src[f.Name]; f.SizeBytes > 0 && (!ok || size != f.SizeBytes) {
			return raw, c.explain(ctx, j, fmt.Errorf("%w: %s has %d bytes instead of %d", bucket.ErrNotFound, f.Name, size, f.SizeBytes))
		}
	}
	return raw, nil
}

// explain tells an object that misses in a block of the newest manifest from one of a block that has left it.
func (c *Copier) explain(ctx context.Context, j job, err error) error {
	if !errors.Is(err, bucket.ErrNotFound) {
		return err
	}
	listed, asked := c.stillListed(ctx, j.tenant, j.id)
	switch {
	case asked != nil:
		return errors.Join(err, asked)
	case listed:
		return fmt.Errorf("%w: %w", ErrIncomplete, err)
	default:
		return fmt.Errorf("%w: %w", errMoved, err)
	}
}

// order returns the names of a block's objects as they are to be sent.
func order(files sizes) []string {
	rank := func(name string) int {
		switch {
		case strings.HasPrefix(name, "chunks/"):
			return 0
		case name == block.IndexName:
			return 1
		case name == block.MetaName:
			return 3
		default:
			return 2
		}
	}
	names := slices.Collect(maps.Keys(files))
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b)) })
	return names
}

// object brings one object over, or leaves it when it is there.
func (c *Copier) object(ctx context.Context, j job, name string) error {
	key, size := block.Key(j.tenant, j.id, name), j.src[name]
	switch there, ok := j.dst[name]; {
	case !ok:
		return c.send(ctx, key, size)
	case there != size && name == block.SidecarName: // it can be built in more than one size
		return c.send(ctx, key, size)
	case there != size: // no put leaves a part of an object, and the one that was cut may be the source's
		return fmt.Errorf("%w: %s has %d bytes there and %d in the source", ErrDiffers, key, there, size)
	case c.o.Verify != VerifyAll:
		return nil
	}
	ours, err := digest(ctx, c.src, key, size)
	if err != nil {
		return err
	}
	theirs, err := digest(ctx, c.dst, key, size)
	if err != nil {
		return err
	}
	c.o.Went(size)
	if !bytes.Equal(ours, theirs) && name == block.SidecarName {
		return c.send(ctx, key, size)
	}
	if !bytes.Equal(ours, theirs) {
		return fmt.Errorf("%w: %s has the same size and other bytes", ErrDiffers, key)
	}
	return nil
}

const (
	// attempts is how often an object is sent. Backends repeat requests; what is left are bodies that break off.
	attempts = 4
	// firstPause is the pause before the second attempt; it doubles.
	firstPause = 200 * time.Millisecond
)

// send copies one object and verifies it.
func (c *Copier) send(ctx context.Context, key string, size int64) (err error) {
	pause := firstPause
	for n := range attempts {
		if n > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(pause):
				pause *= 2
			}
		}
		if err = c.sendOnce(ctx, key, size); err == nil || ctx.Err() != nil || errors.Is(err, bucket.ErrNotFound) {
			return err
		}
	}
	return err
}

func (c *Copier) sendOnce(ctx context.Context, key string, size int64) error {
	body, err := c.src.Get(ctx, key)
	if err != nil {
		return err
	}
	h := sha256.New()
	err = c.dst.Put(ctx, key, &meter{body, h, c.o.Went}, size)
	if err := errors.Join(err, body.Close()); err != nil {
		return err
	}
	if err := c.sent(ctx, key, size, h.Sum(nil)); err != nil {
		return fmt.Errorf("destination: %s", err.Error()) // the cause is told and not wrapped: nothing misses in the source
	}
	return nil
}

// sent verifies an object that was sent just now.
func (c *Copier) sent(ctx context.Context, key string, size int64, want []byte) error {
	if c.o.Verify == VerifySizes {
		o, err := c.dst.Stat(ctx, key)
		if err == nil && o.Size != size {
			err = fmt.Errorf("%s has %d bytes after %d were sent", key, o.Size, size)
		}
		return err
	}
	there, err := digest(ctx, c.dst, key, size)
	if err == nil && !bytes.Equal(there, want) {
		err = fmt.Errorf("%s reads back other than it was sent", key)
	}
	return err
}

// meter is a body on its way: it is hashed and counted.
type meter struct {
	r    io.Reader
	h    hash.Hash
	sent func(int64)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	_, _ = m.h.Write(p[:n]) // a hash takes everything
	m.sent(int64(n))
	return n, err
}

// digest returns the hash of an object, all of it: a body that ends early is an error.
func digest(ctx context.Context, bkt bucket.Bucket, key string, size int64) ([]byte, error) {
	body, err := bkt.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	n, err := io.Copy(h, body)
	if err == nil && n != size {
		err = fmt.Errorf("received %d of %d bytes of %s", n, size, key)
	}
	return h.Sum(nil), errors.Join(err, body.Close())
}

// maxSmall bounds what is read whole: manifests and meta.json.
const maxSmall = 1 << 30

// fetch returns a small object, all of it: a body that ends early is an error.
func fetch(ctx context.Context, bkt bucket.Bucket, key string) ([]byte, error) {
	body, err := bkt.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(body, maxSmall))
	if err := errors.Join(err, body.Close()); err != nil {
		return nil, err
	}
	o, err := bkt.Stat(ctx, key)
	if err == nil && o.Size != int64(len(data)) {
		err = fmt.Errorf("received %d of %d bytes of %s", len(data), o.Size, key)
	}
	return data, err
}
