package s3

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

// maxEntries is what the protocol allows of keys in one answer to a listing and in one request to delete.
const maxEntries = 1000

// List implements bucket.Bucket. Objects whose keys could not be asked for, such as the markers that end in "/" by
// which some tools represent folders, are passed over.
func (b *Bucket) List(ctx context.Context, prefix string, recursive bool, fn func(bucket.Object) error) error {
	if err := validatePrefix(prefix); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	l := listing{b: b, prefix: prefix, recursive: recursive, fn: fn}
	for {
		from := l.last
		_, err := retry(ctx, b, func() (struct{}, error) { return struct{}{}, l.resume(ctx) })
		switch {
		case l.stopped != nil:
			return l.stopped
		case err == nil:
			return nil
		case l.last == from || !retryable(ctx, err):
			return fmt.Errorf("list %s: %w", cmp.Or(prefix, "everything"), err)
		}
	}
}

// validatePrefix refuses what is the beginning of no key.
func validatePrefix(prefix string) error {
	if prefix == "" || bucket.ValidateKey(prefix) == nil {
		return nil
	}
	return bucket.ValidateKey(prefix + "x") // it may end in the middle of a segment, or in front of one
}

// listing is one call of List, which survives failures in between.
type listing struct {
	b         *Bucket
	prefix    string
	recursive bool
	fn        func(bucket.Object) error

	page    []bucket.Object
	last    string // the last key that was dealt with
	stopped error  // what fn returned
}

// resume lists what comes after l.last. It returns nil when fn has stopped the listing.
func (l *listing) resume(ctx context.Context) error {
	pages, seen := 0, 0
	entries := l.b.client.ListObjectsIter(withPages(ctx, &pages), l.b.cfg.BucketName, minio.ListObjectsOptions{
		Prefix: l.prefix, Recursive: l.recursive, StartAfter: l.last, MaxKeys: maxEntries, FetchOwner: new(bool),
	})
	for e := range entries {
		if e.Err != nil || pages != seen {
			seen = pages
			if err := l.flush(ctx); err != nil || l.stopped != nil {
				return err
			}
		}
		if e.Err != nil {
			return e.Err
		}
		l.page = append(l.page, entry(e))
		if len(l.page) == maxEntries { // a page has no more, and fn may not want the next
			if err := l.flush(ctx); err != nil || l.stopped != nil {
				return err
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return err // the library ends its sequence then as if it were complete
	}
	return l.flush(ctx)
}

func entry(e minio.ObjectInfo) bucket.Object {
	if strings.HasSuffix(e.Key, "/") {
		return bucket.Object{Key: e.Key}
	}
	return bucket.Object{Key: e.Key, Size: e.Size, LastModified: e.LastModified}
}

// flush hands the page to fn. The server sorts objects and common prefixes together over all pages, but lists them
// apart within one.
func (l *listing) flush(ctx context.Context) error {
	slices.SortFunc(l.page, func(a, b bucket.Object) int { return strings.Compare(a.Key, b.Key) })
	defer func() { l.page = l.page[:0] }()
	for _, o := range l.page {
		if err := ctx.Err(); err != nil {
			return err
		}
		if o.Key < l.last {
			return fmt.Errorf("%w: the listing goes back from %q to %q", ErrNotS3, l.last, o.Key)
		}
		if o.Key == l.last || l.passOver(o.Key) {
			continue // a common prefix is seen again when a listing is resumed behind it
		}
		l.last = o.Key
		if l.stopped = l.fn(o); l.stopped != nil {
			return nil
		}
	}
	return nil
}

// passOver says whether key is neither an object of ours nor a common prefix of such.
func (l *listing) passOver(key string) bool {
	folder, isFolder := strings.CutSuffix(key, "/")
	if isFolder && (l.recursive || key == l.prefix) {
		return true
	}
	return bucket.ValidateKey(folder) != nil
}
