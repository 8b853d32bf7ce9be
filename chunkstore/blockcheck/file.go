package blockcheck

import (
	"context"
	"errors"
	"fmt"
)

// windowBytes is fetched at a time: large enough that the round trips of a store do not count, small beside memory.
const windowBytes = 4 << 20

// errEnd means that a file ends before what was asked for.
var errEnd = errors.New("it is beyond the end of the file")

// file is a block's file that is read forwards, a window at a time.
type file struct {
	ctx    context.Context //nolint:containedctx // lives as long as the check that reads
	src    Source
	name   string
	size   int64
	read   func(n int64) // told of the bytes that were fetched
	start  int64         // of window in the file
	window []byte
}

// at returns n bytes at off. They are valid until the next call. errEnd when the file has fewer; any other error is the
// source's.
func (f *file) at(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || n > f.size-off {
		return nil, errEnd
	}
	if off < f.start || off+n > f.start+int64(len(f.window)) {
		if err := f.fetch(off, n); err != nil {
			return nil, err
		}
	}
	return f.window[off-f.start:][:n:n], nil
}

// upTo is at for as many of n bytes as the file has.
func (f *file) upTo(off, n int64) ([]byte, error) { return f.at(off, max(0, min(n, f.size-off))) }

func (f *file) fetch(off, n int64) error {
	length := min(max(n, windowBytes), f.size-off)
	if int64(cap(f.window)) < length {
		f.window = make([]byte, length)
	}
	f.window = f.window[:length]
	f.start = off
	if err := f.src.ReadAt(f.ctx, f.name, f.window, off); err != nil {
		f.window = f.window[:0]
		return fmt.Errorf("read %s: %w", f.name, err)
	}
	f.read(length)
	return f.ctx.Err()
}

// each calls fn with the bytes [from, to) in pieces of at most a window.
func (f *file) each(from, to int64, fn func(off int64, piece []byte) error) error {
	for from < to {
		piece, err := f.at(from, min(windowBytes, to-from))
		if err != nil {
			return err
		}
		if err := fn(from, piece); err != nil {
			return err
		}
		from += int64(len(piece))
	}
	return nil
}

// firstNonZero returns the offset of the first byte in [from, to) that is not zero, or -1.
func (f *file) firstNonZero(from, to int64) (int64, error) {
	found := int64(-1)
	err := f.each(from, to, func(off int64, piece []byte) error {
		for i, b := range piece {
			if b != 0 {
				found = off + int64(i)
				return errFound
			}
		}
		return nil
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return found, err
}

var errFound = errors.New("found")
