package cache

import "errors"

// ErrShort means that the bucket gave fewer or more bytes of an object than it was asked for: the body was cut off on
// its way, or the object is not the one whose size the caller knows. Read again; when that fails too, the object is
// damaged.
var ErrShort = errors.New("object has another size than expected")

// ErrSpan means that a caller asked for bytes outside of an object. Whatever made the span is damaged or wrong.
var ErrSpan = errors.New("span is outside of the object")

// ErrLocked means that another process uses the directory of a Disk.
var ErrLocked = errors.New("directory is in use by another process")
