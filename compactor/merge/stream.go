package merge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/internal/errkind"
)

const (
	// attempts is how often a range is asked for. Backends repeat requests that fail, but not a body that breaks off.
	attempts = 3

	// slackBytes is the room in front of a window for the end of the one before: more than nearly all records take.
	slackBytes = 16 << 10

	// besideBytes is fetched for what lies behind the window.
	besideBytes = 64 << 10
)

// objects reads ranges of the objects of one input.
type objects struct {
	ctx    context.Context //nolint:containedctx // lives as long as the job
	bkt    bucket.Bucket
	prefix string
	wg     *sync.WaitGroup // of all reading in the background
	read   func(n int64)   // told of what was read
	patience
}

// fill fills p from byte off of an object. Errors are of kind Unavailable, or wrap bucket.ErrNotFound.
func (o *objects) fill(name string, p []byte, off int64) error {
	return o.keep(o.ctx, func() error { return o.few(name, p, off) })
}

func (o *objects) few(name string, p []byte, off int64) (err error) {
	for range attempts {
		if err = o.once(name, p, off); err == nil {
			o.read(int64(len(p)))
			return nil
		}
		if errors.Is(err, bucket.ErrNotFound) {
			return err
		}
		if o.ctx.Err() != nil {
			return o.ctx.Err()
		}
	}
	return errkind.Wrap(errkind.Unavailable, err)
}

func (o *objects) once(name string, p []byte, off int64) error {
	body, err := o.bkt.GetRange(o.ctx, o.prefix+name, off, int64(len(p)))
	if err != nil {
		return fmt.Errorf("read %s: %w", o.prefix+name, err)
	}
	n, err := io.ReadFull(body, p)
	if err := errors.Join(err, body.Close()); err != nil {
		return fmt.Errorf("read %s: %d of %d bytes at %d: %w", o.prefix+name, n, len(p), off, err)
	}
	return nil
}

// object is one of those that a stream reads.
type object struct {
	name string
	size int64
}

// errEnd means that an object ends before what was asked for.
var errEnd = errors.New("it is beyond the end of the file")

// stream reads objects forwards, one after another, and fetches what comes next while what it has is used. What lies
// behind is read beside it, at a request each. It is for one goroutine.
type stream struct {
	from  *objects
	files []object
	ahead int64 // bytes of a window
	until int64 // of the only file: nothing is fetched in advance beyond it; 0 means its end

	began  bool
	at     int   // file of the window
	start  int64 // of the window in it
	window []byte
	spare  []byte // to be filled next
	used   []byte // what window is a part of
	next   *fetch // nil: nothing is on its way

	side   []byte
	sideAt int
	sideOn int64
}

// fetch is a window on its way.
type fetch struct {
	file  int
	start int64
	n     int64
	buf   []byte // slackBytes and then the n bytes
	done  chan struct{}
	err   error
}

// bytes returns n bytes at off of a file. They are valid until the next call. errEnd when the file has fewer.
func (s *stream) bytes(file int, off, n int64) ([]byte, error) {
	if file == s.at && off >= s.start && off+n <= s.start+int64(len(s.window)) {
		return s.window[off-s.start:][:n:n], nil
	}
	return s.move(file, off, n)
}

// upTo is bytes for as many of n as lie before limit.
func (s *stream) upTo(file int, off, n, limit int64) ([]byte, error) {
	return s.bytes(file, off, max(0, min(n, limit-off)))
}

func (s *stream) move(file int, off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || n > s.files[file].size-off {
		return nil, errEnd
	}
	if s.began && (file < s.at || file == s.at && off < s.start) {
		return s.beside(file, off, n)
	}
	if n > s.ahead {
		return s.beside(file, off, n)
	}
	var tail []byte
	if s.began && file == s.at {
		tail = s.window[min(int64(len(s.window)), off-s.start):]
	}
	if len(tail) > slackBytes {
		tail = nil
	}
	f, err := s.fetched(file, off+int64(len(tail)))
	if err != nil {
		return nil, err
	}
	skip := off + int64(len(tail)) - f.start
	begin := int64(slackBytes) + skip - int64(len(tail))
	copy(f.buf[begin:], tail)
	s.spare, s.used = s.used, f.buf
	s.began, s.at, s.start, s.window = true, file, off, f.buf[begin:slackBytes+f.n]
	s.advance()
	if int64(len(s.window)) < n {
		return s.beside(file, off, n)
	}
	return s.window[:n:n], nil
}

// fetched returns a window that holds the byte at off, or is empty where the file ends there.
func (s *stream) fetched(file int, off int64) (*fetch, error) {
	if f := s.next; f != nil {
		<-f.done
		s.next = nil
		if f.err == nil && f.file == file && f.start <= off && off < f.start+f.n {
			return f, nil
		}
		s.spare = f.buf
		if f.err != nil && f.file == file && f.start <= off && off < f.start+f.n {
			return nil, f.err
		}
	}
	f := s.fetch(file, off)
	if f == nil {
		return &fetch{file: file, start: off, buf: s.buffer(0)}, nil
	}
	f.run(s.from, s.files[file].name)
	return f, f.err
}

// fetch prepares to fetch the window at off, nil when there is nothing.
func (s *stream) fetch(file int, off int64) *fetch {
	size := s.files[file].size
	if size <= s.ahead && !s.began && len(s.files) == 1 {
		off = 0 // a small file is read whole
	} else if s.until > 0 && off < s.until {
		size = min(size, s.until)
	}
	n := min(s.ahead, size-off)
	if n <= 0 {
		return nil
	}
	return &fetch{file: file, start: off, n: n, buf: s.buffer(n), done: make(chan struct{})}
}

// buffer returns room for n bytes behind the slack.
func (s *stream) buffer(n int64) []byte {
	b := s.spare
	s.spare = nil
	if int64(len(b)) < slackBytes+n {
		b = make([]byte, slackBytes+n)
	}
	return b
}

func (f *fetch) run(from *objects, name string) {
	f.err = from.fill(name, f.buf[slackBytes:slackBytes+f.n], f.start)
	close(f.done)
}

// advance begins to fetch what follows the window.
func (s *stream) advance() {
	file, off := s.at, s.start+int64(len(s.window))
	if off >= s.files[file].size || s.until > 0 && off >= s.until {
		if file+1 >= len(s.files) {
			return
		}
		file, off = file+1, 0
	}
	if s.next = s.fetch(file, off); s.next != nil {
		f, name := s.next, s.files[file].name
		s.from.wg.Go(func() { f.run(s.from, name) })
	}
}

// beside returns bytes that are not in the way of the stream.
func (s *stream) beside(file int, off, n int64) ([]byte, error) {
	if s.side != nil && file == s.sideAt && off >= s.sideOn && off+n <= s.sideOn+int64(len(s.side)) {
		return s.side[off-s.sideOn:][:n:n], nil
	}
	length := min(max(n, besideBytes), s.files[file].size-off)
	if int64(cap(s.side)) < length {
		s.side = make([]byte, length)
	}
	s.side = s.side[:length]
	if err := s.from.fill(s.files[file].name, s.side, off); err != nil {
		s.side = nil
		return nil, err
	}
	s.sideAt, s.sideOn = file, off
	return s.side[:n:n], nil
}

// release drops what the stream holds. Nothing may be on its way.
func (s *stream) release() { *s = stream{} }
