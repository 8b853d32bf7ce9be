package ingestrpc

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/rpcframe"
	"github.com/duramendb/duramen/internal/tracing"
	"github.com/duramendb/duramen/tenant"
)

// readCall is a call to an ingester that has begun to answer. One goroutine receives; close is for any.
type readCall struct {
	reader *Reader
	held   duramenpb.Held
	stream grpc.ClientStream

	caller, ctx context.Context //nolint:containedctx // the caller's and, below it, the call's own, which live as long
	cancel      context.CancelCauseFunc
	silence     *time.Timer // ends ctx
	release     func()
	once        sync.Once
	failure     error // of an end
	outcome     string
}

// begin makes a call and returns it when the answer has begun.
func (r *Reader) begin(ctx context.Context, method, tenantID string, request *readRequest) (*readCall, error) {
	frame, err := request.frame()
	if err != nil {
		return nil, err
	}
	c := &readCall{reader: r, caller: ctx, release: func() {}, outcome: outcomeLeft}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	c.silence = time.AfterFunc(r.client.cfg.SilenceTimeout, func() { c.cancel(errSilent) })
	conn, release, err := r.client.dial(r.address)
	if err != nil {
		return nil, c.end(err)
	}
	c.release = release
	out := metadata.AppendToOutgoingContext(c.ctx, tenant.MetadataKey, tenantID)
	if r.storageID != "" {
		out = metadata.AppendToOutgoingContext(out, storageKey, r.storageID)
	}
	if parent := tracing.Current(ctx).Traceparent(); parent != "" {
		out = metadata.AppendToOutgoingContext(out, tracing.MetadataKey, parent)
	}
	c.stream, err = conn.NewStream(out, &grpc.StreamDesc{ServerStreams: true}, "/"+readService+"/"+method)
	if err != nil {
		return nil, c.end(err)
	}
	f := rpcframe.Frame(frame)
	if err := c.stream.SendMsg(&f); err != nil && !errors.Is(err, io.EOF) { // of io.EOF, receiving tells the reason
		return nil, c.end(err)
	}
	if err := c.stream.CloseSend(); err != nil {
		return nil, c.end(err)
	}
	opened, err := c.receive()
	if err != nil {
		return nil, err
	}
	if opened[0] != frameOpened {
		return nil, c.end(errFrame(opened[0]))
	}
	if c.held, err = decodeOpened(opened[1:]); err != nil {
		return nil, c.end(err)
	}
	return c, nil
}

// receive returns the next frame, of at least one byte. An error ends the call; of an answer that ends before it is done,
// too.
func (c *readCall) receive() ([]byte, error) {
	defer c.silence.Stop()
	for {
		c.silence.Reset(c.reader.client.cfg.SilenceTimeout)
		var frame rpcframe.Frame
		if err := c.stream.RecvMsg(&frame); err != nil {
			return nil, c.end(err)
		}
		c.reader.client.metrics.bytes.Add(float64(len(frame)))
		switch {
		case len(frame) == 0:
			return nil, c.end(rpcframe.ErrCut)
		case frame[0] == frameAlive:
			continue
		case frame[0] != frameError:
			return frame, nil
		}
		e, err := decodeError(frame[1:])
		if err != nil {
			return nil, c.end(err)
		}
		c.outcome, c.failure = outcomeRefused, told(c.reader.address, e)
		c.close()
		return nil, c.failure
	}
}

// end ends a call that is whole, for which err is nil, or one that is broken, and returns the error to hand on.
func (c *readCall) end(err error) error {
	if err == nil {
		c.outcome = outcomeAnswered
		c.silence.Reset(c.reader.client.cfg.SilenceTimeout)
		_ = c.stream.RecvMsg(new(rpcframe.Frame)) // the end, so that the server's side is no cancelled one
		c.close()
		return nil
	}
	c.failure = broken(c.caller, c.ctx, c.reader.address, err)
	if errors.Is(c.failure, duramenpb.ErrAway) {
		c.outcome = outcomeAway
	}
	c.close()
	return c.failure
}

// failed is end for an error that may be of receive, which has ended the call.
func (c *readCall) failed(err error) error {
	if c.failure != nil {
		return c.failure
	}
	return c.end(err)
}

// close ends the call in whatever state it is. Further calls do nothing.
func (c *readCall) close() {
	c.once.Do(func() {
		c.silence.Stop()
		c.cancel(errSelectionClosed)
		c.release()
		c.reader.client.metrics.calls.WithLabelValues(c.outcome).Inc()
	})
}
