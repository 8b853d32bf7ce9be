// Package rooted owns the one difference between the bucket of a Thanos and all others: its blocks lie at the top, in no
// tenant's folder. It gives them to one tenant, under the keys that the blocks of a tenant have, and moves nothing. Read
// package bucket for what a bucket promises.
package rooted

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

// Bucket is a bucket in which <ulid>/… at the top is seen as <tenant>/<ulid>/…, and every other key as it is. What lies
// under the tenant's name with a ULID behind it is not seen.
type Bucket struct {
	bucket.Bucket

	folder string // the tenant's, with the slash
}

// New returns b with the blocks at its top given to a tenant, whose ID is valid and no ULID.
func New(b bucket.Bucket, tenant string) *Bucket { return &Bucket{b, tenant + "/"} }

// IsBlockFolder reports whether a name is that of a block's folder: a ULID as it is written.
func IsBlockFolder(name string) bool {
	id, err := ulid.ParseStrict(name)
	return err == nil && id.String() == name
}

// inBlock reports whether a key, without the tenant, is one of a block.
func inBlock(key string) bool {
	folder, _, found := strings.Cut(key, "/")
	return found && IsBlockFolder(folder)
}

// place returns the key in the bucket behind; ok is false for a key that names nothing in this one.
func (b *Bucket) place(key string) (_ string, ok bool) {
	if rest, found := strings.CutPrefix(key, b.folder); found && inBlock(rest) {
		return rest, true
	}
	return key, !inBlock(key)
}

func (b *Bucket) missing(key string) error {
	return fmt.Errorf("%w: %s is of tenant %s", bucket.ErrNotFound, key, strings.TrimSuffix(b.folder, "/"))
}

func (b *Bucket) refused(key string) error {
	return fmt.Errorf("%w: %s: blocks at the top belong to tenant %s", bucket.ErrInvalidKey, key,
		strings.TrimSuffix(b.folder, "/"))
}

// Get implements bucket.Bucket.
func (b *Bucket) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	at, ok := b.place(key)
	if !ok {
		return nil, b.missing(key)
	}
	return b.Bucket.Get(ctx, at)
}

// GetRange implements bucket.Bucket.
func (b *Bucket) GetRange(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	at, ok := b.place(key)
	if !ok {
		return nil, b.missing(key)
	}
	return b.Bucket.GetRange(ctx, at, off, length)
}

// Stat implements bucket.Bucket.
func (b *Bucket) Stat(ctx context.Context, key string) (bucket.Object, error) {
	at, ok := b.place(key)
	if !ok {
		return bucket.Object{}, b.missing(key)
	}
	o, err := b.Bucket.Stat(ctx, at)
	o.Key = key
	return o, err
}

// Put implements bucket.Bucket.
func (b *Bucket) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	at, ok := b.place(key)
	if !ok {
		return b.refused(key)
	}
	return b.Bucket.Put(ctx, at, r, size)
}

// PutIfAbsent implements bucket.Bucket.
func (b *Bucket) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	at, ok := b.place(key)
	if !ok {
		return b.refused(key)
	}
	return b.Bucket.PutIfAbsent(ctx, at, data)
}

// Delete implements bucket.Bucket.
func (b *Bucket) Delete(ctx context.Context, keys ...string) error {
	places := make([]string, 0, len(keys))
	for _, key := range keys {
		if at, ok := b.place(key); ok {
			places = append(places, at)
		}
	}
	return b.Bucket.Delete(ctx, places...)
}

// List implements bucket.Bucket. A prefix that the tenant's folder has, or begins with, takes two listings, which are
// merged.
func (b *Bucket) List(ctx context.Context, prefix string, recursive bool, fn func(bucket.Object) error) error {
	rest, inFolder := strings.CutPrefix(prefix, b.folder)
	switch {
	case inFolder && inBlock(rest):
		return b.Bucket.List(ctx, rest, recursive, func(o bucket.Object) error {
			o.Key = b.folder + o.Key
			return fn(o)
		})
	case inFolder && !strings.Contains(rest, "/"):
		return b.merge(ctx, prefix, recursive, b.blocks(ctx, rest, recursive), fn)
	case !inFolder && strings.HasPrefix(b.folder, prefix) && recursive:
		return b.merge(ctx, prefix, recursive, b.blocks(ctx, "", true), fn)
	case !inFolder && strings.HasPrefix(b.folder, prefix):
		return b.merge(ctx, prefix, recursive, b.own(ctx), fn)
	default:
		return b.Bucket.List(ctx, prefix, recursive, b.others(fn))
	}
}

// others leaves out of a listing what is a block at the top, and what is hidden behind the tenant's blocks.
func (b *Bucket) others(fn func(bucket.Object) error) func(bucket.Object) error {
	return func(o bucket.Object) error {
		if rest, inFolder := strings.CutPrefix(o.Key, b.folder); inBlock(o.Key) || inFolder && inBlock(rest) {
			return nil
		}
		return fn(o)
	}
}

// errEnough ends a listing of which no more is wanted.
var errEnough = errors.New("enough")

// behindULIDs is greater than every ULID, whose first digit is 7 at most.
const behindULIDs = "8"

// blocks lists what the blocks at the top have, by its keys here, in order.
func (b *Bucket) blocks(ctx context.Context, prefix string, recursive bool) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		err := b.Bucket.List(ctx, prefix, recursive, func(o bucket.Object) error {
			if o.Key >= behindULIDs {
				return errEnough
			}
			if !inBlock(o.Key) {
				return nil
			}
			o.Key = b.folder + o.Key
			if !yield(o, nil) {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(bucket.Object{}, err)
		}
	}
}

// own is the tenant's folder as a common prefix, when there is a block at the top.
func (b *Bucket) own(ctx context.Context) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		for _, err := range b.blocks(ctx, "", false) {
			yield(bucket.Object{Key: b.folder}, err)
			return
		}
	}
}

// merge lists a prefix in the bucket behind together with blocks, in the order of keys.
func (b *Bucket) merge(
	ctx context.Context, prefix string, recursive bool, blocks iter.Seq2[bucket.Object, error], fn func(bucket.Object) error,
) error {
	next, stop := iter.Pull2(blocks)
	defer stop()
	first, err, more := next()
	// emit gives the blocks that come before something.
	emit := func(before func(key string) bool) error {
		for err == nil && more && before(first.Key) {
			if err := fn(first); err != nil {
				return err
			}
			first, err, more = next()
		}
		return err
	}
	listed := b.Bucket.List(ctx, prefix, recursive, b.others(func(o bucket.Object) error {
		same := more && first.Key == o.Key // a common prefix that both have
		if err := emit(func(key string) bool { return key <= o.Key }); err != nil || same {
			return err
		}
		return fn(o)
	}))
	if listed != nil {
		return listed
	}
	return emit(func(string) bool { return true })
}
