package bucket

import "errors"

// ErrNotFound means that no object has the key. The caller decides whether that is a fault.
var ErrNotFound = errors.New("object not found")

// ErrExists means that PutIfAbsent found the key taken: another writer won. Read the object before retrying, for a
// lost answer makes an own success look the same.
var ErrExists = errors.New("object already exists")

// ErrInvalidKey means that ValidateKey refuses the key or prefix. Nothing was asked of the store.
var ErrInvalidKey = errors.New("invalid object key")

// ErrUnconditional means that a put of an existing key succeeded although it should not have, or that the store says
// that it has no such put: two owners of a manifest would overwrite each other. Choose another store or guarantee a
// single writer.
var ErrUnconditional = errors.New("the bucket does not honour put-if-absent; use a store that does, or set " +
	"bucket.single_writer when never more than one process writes to it")
