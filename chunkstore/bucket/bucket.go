// Package bucket owns the object store as the rest of Duramen sees it: keys, whole objects, byte ranges, and a put that
// fails when the key exists. It knows nothing of blocks or tenants. Read package manifest next for what is built on
// the conditional put.
package bucket

import (
	"context"
	"errors"
	"io"
	"time"
)

// ErrNotFound means that no object has the key. The caller decides whether that is a fault.
var ErrNotFound = errors.New("object not found")

// ErrExists means that PutIfAbsent found the key taken: another writer won. Read the object before retrying, for a
// lost answer makes an own success look the same.
var ErrExists = errors.New("object already exists")

// Object is an entry of a listing.
type Object struct {
	// Key is the full key; a common prefix, which only a listing that is not recursive has, ends in "/".
	Key string
	// Size is in bytes, 0 for a common prefix.
	Size int64
	// LastModified is the store's clock, the zero time for a common prefix.
	LastModified time.Time
}

// Bucket is an object store. Keys are slash-separated paths without a leading slash. All methods are safe for
// concurrent use and end when their context does. An error other than ErrNotFound and ErrExists means that the outcome
// is unknown: a Put may have happened.
type Bucket interface {
	// Name says which bucket this is, for logs and errors, such as "filesystem /var/lib/duramen/bucket".
	Name() string

	// Get returns the whole object. The caller closes it. ErrNotFound when there is none.
	Get(ctx context.Context, key string) (io.ReadCloser, error)

	// GetRange returns bytes [off, off+length) of the object, fewer when the object ends before. The caller closes it.
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
	// error, which List returns. Unless recursive is set, keys with a "/" behind the prefix are reported once as a
	// common prefix.
	List(ctx context.Context, prefix string, recursive bool, fn func(Object) error) error

	// Delete removes the objects. A key that does not exist is no error. On an error some may be gone.
	Delete(ctx context.Context, keys ...string) error
}
