package ingestrpc

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/rpcframe"
	"github.com/duramendb/duramen/internal/tracing"
)

// frameSize is how many bytes of sections go into a frame at most, unless one alone is larger. What comes while a frame is
// being sent goes into the next one together.
const frameSize = 128 << 10

// item is a section without an answer. It is in the queue of its lane until it is sent, then in the list of what is owed;
// whoever takes it out of there calls its done.
type item struct {
	section  []byte // nil once it is sent: it may be the sender's again
	size     int64
	deadline time.Time    // zero for none
	span     tracing.Span // of the sender
	done     func(*duramenpb.PushResult, error)
}

// lane is a stream to a peer, dialed anew for the next section after it broke.
type lane struct {
	peer *Peer
	wake chan struct{} // holds one when there is something to do
	// version is up to which one the present stream's server reads frames.
	version atomic.Uint32

	mu      sync.Mutex
	running bool
	ended   bool
	cancel  context.CancelFunc // of the goroutine
	queue   []*item
	owed    []*item // by number, from first on; nil where an answer came
	first   uint64
}

// put takes an item over; false when the lane has ended.
func (l *lane) put(it *item) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.queue = append(l.queue, it)
	if !l.running {
		l.running = true
		ctx, cancel := context.WithCancel(context.Background())
		l.cancel = cancel
		l.peer.client.working.Go(func() { l.run(ctx) })
	}
	l.signal()
	return true
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// end has the lane's goroutine fail what is left, and end.
func (l *lane) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	if l.cancel != nil {
		l.cancel()
	}
}

// run sends what is put, over one stream after another, until the lane ends.
func (l *lane) run(ctx context.Context) {
	for {
		select {
		case <-l.wake:
		case <-ctx.Done():
			l.fail(errClientClosed, failedClosed)
			return
		}
		if !l.waiting() {
			continue
		}
		err := l.stream(ctx)
		if ctx.Err() != nil {
			l.fail(errClientClosed, failedClosed)
			return
		}
		l.fail(err, failedAway)
	}
}

// waiting reports whether there is something to send: a wake may be about what has expired.
func (l *lane) waiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) > 0
}

// stream sends and receives until the stream breaks, and returns why.
func (l *lane) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	desc := &grpc.StreamDesc{StreamName: pushName, ServerStreams: true, ClientStreams: true}
	s, err := l.peer.conn.NewStream(ctx, desc, PushMethod)
	if err != nil {
		return plain(err)
	}
	l.version.Store(pushVersion)
	var receiver sync.WaitGroup
	var broken error
	receiver.Go(func() {
		broken = l.receive(s)
		cancel()
		l.signal()
	})
	err = l.send(ctx, s)
	cancel()
	receiver.Wait()
	if err == nil || errors.Is(err, io.EOF) {
		err = broken // what the stream says of its end
	}
	return err
}

// send sends frames until the stream ends. Its error is nil or io.EOF when the receiver knows more.
func (l *lane) send(ctx context.Context, s grpc.ClientStream) error {
	m := l.peer.client.metrics
	for {
		frame := rpcframe.Frame(l.frame(time.Now()))
		if len(frame) == 0 {
			select {
			case <-l.wake:
				if ctx.Err() == nil {
					continue
				}
			case <-ctx.Done():
			}
			return nil
		}
		m.frames.Inc()
		m.bytes.Add(float64(len(frame)))
		if err := s.SendMsg(&frame); err != nil {
			return err
		}
	}
}

// frame makes a frame of what waits, and moves it to what is owed; nil when nothing waits. It is new memory each time, for
// gRPC sends it when it likes. The sections are copied under the lock, so that no one gives an item back meanwhile.
func (l *lane) frame(now time.Time) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, size := 0, 1
	for n < len(l.queue) && (n == 0 || size+len(l.queue[n].section) <= frameSize) {
		size += len(l.queue[n].section) + 12
		n++
	}
	if n == 0 {
		return nil
	}
	frame := append(make([]byte, 0, size), l.versionFor(l.queue[:n]))
	for _, it := range l.queue[:n] {
		timeout := time.Duration(0)
		if !it.deadline.IsZero() {
			timeout = max(it.deadline.Sub(now), time.Millisecond)
		}
		frame = appendSection(frame, it.section, timeout, it.span.Parent())
		it.section = nil
	}
	l.owed = append(l.owed, l.queue[:n]...)
	l.queue = remove(l.queue, n)
	return frame
}

// versionFor returns the version of a frame of items: the oldest that can say what is to be said, so that nothing is to be
// said by any when nothing is traced.
func (l *lane) versionFor(items []*item) byte {
	for _, it := range items {
		if it.span.Recording() {
			return byte(l.version.Load())
		}
	}
	return pushVersion
}

// remove takes the first n items out. The memory stays.
func remove(list []*item, n int) []*item {
	rest := copy(list, list[n:])
	clear(list[rest:])
	return list[:rest]
}

// receive gives each answer to its item until the stream ends, and returns why.
func (l *lane) receive(s grpc.ClientStream) error {
	if said, err := s.Header(); err == nil { // An error is what RecvMsg returns, too.
		l.version.Store(uint32(speaks(said)))
	}
	var r duramenpb.PushResult
	for {
		var f rpcframe.Frame
		if err := s.RecvMsg(&f); err != nil {
			if errors.Is(err, io.EOF) {
				return errors.New("it ended the stream")
			}
			return plain(err)
		}
		d, _, err := openFrame(f, pushVersion)
		if err != nil {
			return err
		}
		for d.More() {
			a := nextAnswer(&d)
			if d.Err() != nil {
				return d.Err()
			}
			if err := l.answered(a, &r); err != nil {
				return err
			}
		}
	}
}

// answered gives an answer to its item. An error means that the stream cannot be trusted any more.
func (l *lane) answered(a pushAnswer, r *duramenpb.PushResult) error {
	if a.err == nil {
		if err := duramenpb.DecodeResult(a.verdict, r); err != nil {
			return err
		}
	}
	it, ok := l.claim(a.number)
	switch {
	case !ok:
		return errors.New("an answer to a section that was not sent")
	case it == nil: // expired
	case a.err != nil:
		l.peer.finish(it, nil, a.err, failedRefused)
	default:
		l.peer.finish(it, r, nil, "")
	}
	return nil
}

// claim takes the item of a number out of what is owed; nil when somebody else has done so.
func (l *lane) claim(number uint64) (it *item, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number < l.first {
		return nil, true
	}
	if number-l.first >= uint64(len(l.owed)) {
		return nil, false
	}
	i := int(number - l.first)
	it, l.owed[i] = l.owed[i], nil
	l.trim()
	return it, true
}

// trim drops what is answered at the front of what is owed.
func (l *lane) trim() {
	n := 0
	for n < len(l.owed) && l.owed[n] == nil {
		n++
	}
	// Moving the rest costs as much as it is long: that has to be worth it.
	if n == len(l.owed) || n > 64 && 2*n > len(l.owed) {
		l.owed = remove(l.owed, n)
		l.first += uint64(n)
	}
}

// fail gives everything that is left an error, and forgets the stream.
func (l *lane) fail(err error, reason string) {
	l.mu.Lock()
	left := make([]*item, 0, len(l.owed)+len(l.queue))
	for _, it := range l.owed {
		if it != nil {
			left = append(left, it)
		}
	}
	left = append(left, l.queue...)
	clear(l.owed)
	clear(l.queue)
	l.owed, l.queue, l.first = l.owed[:0], l.queue[:0], 0
	l.mu.Unlock()
	for _, it := range left {
		l.peer.finish(it, nil, err, reason)
	}
}

// expire fails what is not answered at its deadline.
func (l *lane) expire(now time.Time) {
	l.mu.Lock()
	var late []*item
	for i, it := range l.owed {
		if it != nil && it.late(now) {
			late = append(late, it)
			l.owed[i] = nil
		}
	}
	l.trim()
	kept := l.queue[:0]
	for _, it := range l.queue {
		if it.late(now) {
			late = append(late, it)
		} else {
			kept = append(kept, it)
		}
	}
	clear(l.queue[len(kept):])
	l.queue = kept
	l.mu.Unlock()
	for _, it := range late {
		l.peer.finish(it, nil, errLate, failedLate)
	}
}

func (it *item) late(now time.Time) bool { return !it.deadline.IsZero() && now.After(it.deadline) }
