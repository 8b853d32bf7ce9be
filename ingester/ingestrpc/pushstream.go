package ingestrpc

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/rpcframe"
	"github.com/duramendb/duramen/tenant"
)

// maxAnswers is how many bytes of answers may wait for a client to read. Beyond it nothing more is read of the client.
const maxAnswers = 1 << 20

// pushStream is the server's side of a stream. Its handler sends the answers; another goroutine receives.
type pushStream struct {
	server *Server
	stream grpc.ServerStream
	ready  chan struct{} // holds one when there are answers, or nothing is owed any more

	mu      sync.Mutex
	owed    int    // sections without an answer
	answers []byte // a frame of those that are not sent yet; empty when there are none
	closed  bool
	taken   chan struct{} // closed when answers are taken; nil while the receiver does not wait for that
}

func newPushStream(s *Server, stream grpc.ServerStream) *pushStream {
	return &pushStream{server: s, stream: stream, ready: make(chan struct{}, 1)}
}

// run returns when the client wants nothing more or the server drains, and everything is answered; or with an error.
func (p *pushStream) run() error {
	draining, ending := (<-chan struct{})(p.server.draining), false
	select {
	case <-draining:
		return errkind.Wrap(errkind.Unavailable, errDraining)
	default:
	}
	ctx, cancel := context.WithCancel(p.stream.Context())
	defer cancel()
	if err := p.stream.SendHeader(metadata.Pairs(versionKey, strconv.Itoa(tracedVersion))); err != nil {
		return err
	}
	end := make(chan error, 1)
	p.server.receivers.Go(func() { end <- p.receive(ctx) })
	received := (<-chan error)(end)
	for {
		select {
		case <-p.ready:
		case err := <-received:
			if err != nil {
				p.close()
				return err
			}
			ending, received = true, nil
		case <-draining:
			ending, draining = true, nil
		case <-ctx.Done():
			p.close()
			return ctx.Err()
		}
		if frame := p.takeAnswers(); len(frame) > 0 {
			f := rpcframe.Frame(frame)
			if err := p.stream.SendMsg(&f); err != nil {
				p.close()
				return err
			}
		}
		if ending && p.tryEnd() {
			return nil
		}
	}
}

func (p *pushStream) signal() {
	select {
	case p.ready <- struct{}{}:
	default:
	}
}

// takeAnswers returns a frame of what waits. It is new memory each time, for gRPC sends it when it likes.
func (p *pushStream) takeAnswers() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	frame := p.answers
	p.answers = nil
	if p.taken != nil {
		close(p.taken)
		p.taken = nil
	}
	return frame
}

// tryEnd ends the stream unless something is owed still.
func (p *pushStream) tryEnd() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.owed > 0 || len(p.answers) > 0 {
		return false
	}
	p.closed = true
	return true
}

// close has answers that come from now on forgotten.
func (p *pushStream) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.answers = true, nil
}

// receive takes frames until the client wants nothing more. ctx ends with the handler.
func (p *pushStream) receive(ctx context.Context) error {
	for number := uint64(0); ; {
		if !p.waitForClient(ctx) {
			return nil
		}
		var f rpcframe.Frame
		if err := p.stream.RecvMsg(&f); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		p.server.metrics.received.Add(float64(len(f)))
		d, version, err := openFrame(f, tracedVersion)
		if err != nil {
			return undecodable(err)
		}
		now := time.Now()
		for d.More() {
			sent := nextSection(&d, version)
			if d.Err() != nil {
				return errkind.Wrap(errkind.Internal, d.Err())
			}
			a := &arrival{section: sent.section, to: p, number: number}
			if sent.timeout > 0 {
				a.deadline = now.Add(sent.timeout)
			}
			_, a.span = p.server.traces.Continue(ctx, sent.parent, "ingester.section")
			number++
			if !p.accept(ctx, a) {
				a.endSpan(errkind.Wrap(errkind.Unavailable, errDraining))
				return nil
			}
		}
	}
}

// waitForClient waits until the client has read enough of its answers; false when the stream ends.
func (p *pushStream) waitForClient(ctx context.Context) bool {
	for {
		taken, ok := p.crowded()
		if taken == nil {
			return ok
		}
		select {
		case <-taken:
		case <-ctx.Done():
			return false
		}
	}
}

// crowded returns what to wait for when too many answers are not taken yet; else whether the stream goes on.
func (p *pushStream) crowded() (taken <-chan struct{}, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.answers) < maxAnswers {
		return nil, !p.closed
	}
	if p.taken == nil {
		p.taken = make(chan struct{})
	}
	return p.taken, true
}

// accept hands a section on once there is room for it; false when the stream ends.
func (p *pushStream) accept(ctx context.Context, a *arrival) bool {
	header, err := duramenpb.ParseSectionHeader(a.section)
	if err != nil {
		err = undecodable(err)
	} else {
		err = tenant.ValidateID(header.Tenant)
	}
	a.tenant, a.incarnation = header.Tenant, header.Incarnation
	if !p.server.buffer.take(len(a.section), ctx.Done(), p.server.draining) {
		return false
	}
	p.server.metrics.buffered.Add(float64(len(a.section)))
	if !p.owe() {
		p.server.buffer.give(len(a.section))
		return false
	}
	if err != nil {
		a.endSpan(err)
		p.answer(a, nil, err)
		return true
	}
	p.server.commits.put(a)
	return true
}

func (p *pushStream) owe() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.owed++
	return true
}

// answer implements answerer.
func (p *pushStream) answer(a *arrival, verdict []byte, err error) {
	p.server.buffer.give(len(a.section))
	p.server.metrics.answered(err, len(a.section))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owed--
	if !p.closed {
		if len(p.answers) == 0 {
			p.answers = append(p.answers, pushVersion)
		}
		p.answers = appendAnswer(p.answers, a.number, verdict, err)
	}
	p.signal()
}
