package ingestrpc

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/rpcframe"
)

// outbox hands the frames of an answer to a goroutine that sends them, so that the work can give up on a client that does
// not read, which no call of gRPC's does. One frame is on its way while the next one is made: no more is held.
type outbox struct {
	ctx      context.Context //nolint:containedctx // the stream's, which lives as long
	patience time.Duration
	metrics  *readServerMetrics

	frames chan rpcframe.Frame
	failed chan struct{} // closed when the sending failed
	err    error         // why; read it behind failed
	timer  *time.Timer
	closed bool
}

func newOutbox(stream grpc.ServerStream, patience time.Duration, m *readServerMetrics) *outbox {
	o := &outbox{
		ctx: stream.Context(), patience: patience, metrics: m,
		frames: make(chan rpcframe.Frame), failed: make(chan struct{}), timer: time.NewTimer(patience),
	}
	o.timer.Stop()
	return o
}

// run sends frames until close, and says every now and then that the work goes on. It ends with the stream at the latest:
// gRPC fails what is being sent when the handler has returned.
func (o *outbox) run(stream grpc.ServerStream, alive time.Duration) {
	ticker := time.NewTicker(alive)
	defer ticker.Stop()
	for {
		var frame rpcframe.Frame
		select {
		case f, more := <-o.frames:
			if !more {
				return
			}
			if f == nil { // of flush: it was taken, so all before it is sent
				continue
			}
			frame = f
			ticker.Reset(alive)
		case <-ticker.C:
			frame = rpcframe.Frame{frameAlive}
		}
		if err := stream.SendMsg(&frame); err != nil {
			o.err = err
			close(o.failed)
			return
		}
		o.metrics.bytes.Add(float64(len(frame)))
	}
}

// send returns when the frame is about to be sent, or why it is not. The frame is not the caller's any more.
func (o *outbox) send(frame []byte) error {
	o.timer.Reset(o.patience)
	defer o.timer.Stop()
	select {
	case o.frames <- frame:
		return nil
	case <-o.failed:
		return o.err
	case <-o.ctx.Done():
		return context.Cause(o.ctx)
	case <-o.timer.C:
		o.metrics.stalled.Inc()
		return errkind.Wrap(errkind.Unavailable, errStalled)
	}
}

// flush returns when all frames are with gRPC.
func (o *outbox) flush() error { return o.send(nil) }

// close ends run, at once or when the stream has ended. Only the goroutine that sends may call it.
func (o *outbox) close() {
	if !o.closed {
		o.closed = true
		close(o.frames)
	}
}
