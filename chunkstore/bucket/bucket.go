// Package bucket owns the object store as the rest of Duramen sees it: keys, whole objects, byte ranges, and a put that
// fails when the key exists. It knows blocks and tenants only as far as metrics tell keys apart. Read package manifest
// next for what is built on the conditional put.
package bucket

import (
	"context"
	"io"
	"time"
)

// Object is an entry of a listing.
type Object struct {
	// Key is the full key; a common prefix, which only a listing that is not recursive has, ends in "/".
	Key string
	// Size is in bytes, 0 for a common prefix.
	Size int64
	// LastModified is the store's clock, the zero time for a common prefix.
	LastModified time.Time
}

// Bucket is an object store. Keys are slash-separated paths as ValidateKey wants them. All methods are safe for
// concurrent use and end when their context does; so does a body that Get or GetRange returned. An error other than
// ErrNotFound, ErrExists and ErrInvalidKey means that the outcome is unknown: a Put may have happened.
type Bucket interface {
	// Name says which bucket this is, for logs and errors, such as "filesystem /var/lib/duramen/bucket".
	Name() string

	// Get returns the whole object. The caller closes it. ErrNotFound when there is none.
	Get(ctx context.Context, key string) (io.ReadCloser, error)

	// GetRange returns bytes [off, off+length) of the object, fewer when the object ends before, none when off is at or
	// behind its end. A negative off or length is an error. The caller closes it. ErrNotFound when there is no object.
	GetRange(ctx context.Context, key string, off, length int64) (io.ReadCloser, error)

	// Stat returns size and time of one object, or ErrNotFound.
	Stat(ctx context.Context, key string) (Object, error)

	// Put writes the object, replacing one that exists. Readers see the old or the new object, never a part. size is
	// the number of bytes that r yields; a reader that yields another number is an error and leaves no new object.
	Put(ctx context.Context, key string, r io.Reader, size int64) error

	// PutIfAbsent creates the object or returns ErrExists. It is tried exactly once, because a backend's own retry
	// would turn an own success into ErrExists.
	PutIfAbsent(ctx context.Context, key string, data []byte) error

	// List calls fn for each object whose key begins with prefix, in ascending order of keys, until fn returns an
	// error, which List returns. The prefix may end anywhere in a key, also inside a name; the empty one means all.
	// Unless recursive is set, keys with a "/" behind the prefix are reported once as a common prefix. Objects that
	// come or go meanwhile may or may not be seen.
	List(ctx context.Context, prefix string, recursive bool, fn func(Object) error) error

	// Delete removes the objects. A key that does not exist is no error. On an error some may be gone.
	Delete(ctx context.Context, keys ...string) error
}
