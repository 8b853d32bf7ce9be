package ingestrpc

import (
	"context"
	"math"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/ingester"
	"github.com/duramendb/duramen/internal/rpcframe"
)

// TestAPeerThatIsGoneIsAway: nobody listens, or the server stops in the middle.
func TestAPeerThatIsGoneIsAway(t *testing.T) {
	i := newIngester(t, false)
	fillWide(t, i)
	w := startWire(t, i, nil)
	s, err := w.Select(t.Context(), "a", everything, 0, math.MaxInt64, nil, anyName())
	require.NoError(t, err)
	defer s.Close()
	require.True(t, s.Series.Next())
	w.grpc.Stop()
	for s.Series.Next() {
	}
	away(t, s.Series.Err())
	for _, q := range questions() {
		_, err := q.ask(t.Context(), w.Reader)
		away(t, err)
	}
}

// TestAnotherDiskAtTheAddressIsAway: an ingester that lost its disk comes back at its address, empty, and is asked before
// the ring says so. Its answers would lack everything and be taken for whole.
func TestAnotherDiskAtTheAddressIsAway(t *testing.T) {
	i := newIngester(t, false)
	fillExtras(t, i)
	w := startWire(t, i, nil)
	for _, q := range questions() {
		_, err := q.ask(t.Context(), w.client.Reader(w.address, "01M7Z9759AK7JYD4D4ER2V57AK"))
		away(t, err)
		_, err = q.ask(t.Context(), w.client.Reader(w.address, ""))
		require.NoError(t, err, "anyone's")
	}
}

// silentServer takes connections, and then says as much as say does.
func silentServer(t *testing.T, say func(ctx context.Context, stream grpc.ServerStream) error) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer(grpc.ForceServerCodecV2(rpcframe.Codec{}), grpc.WaitForHandlers(true),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error { return say(stream.Context(), stream) }))
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		server.Stop()
		served.Wait()
	})
	return l.Addr().String()
}

// impatient is a reader that gives up soon.
func impatient(t *testing.T, address string) *Reader {
	t.Helper()
	c, r := dialWire(t, address, defaultClient(), nil)
	c.cfg.SilenceTimeout = 100 * time.Millisecond
	return r
}

func TestASilentIngesterIsAway(t *testing.T) {
	hang := func(ctx context.Context, _ grpc.ServerStream) error {
		<-ctx.Done()
		return ctx.Err()
	}
	r := impatient(t, silentServer(t, hang))
	for _, q := range questions() {
		_, err := q.ask(t.Context(), r)
		away(t, err)
		require.ErrorIs(t, err, errSilent)
	}

	// One that begins and then falls silent.
	r = impatient(t, silentServer(t, func(ctx context.Context, stream grpc.ServerStream) error {
		f := rpcframe.Frame(openedFrame(duramenpb.Held{}))
		if err := stream.SendMsg(&f); err != nil {
			return err
		}
		return hang(ctx, stream)
	}))
	r.client.cfg.SilenceTimeout = time.Second // it takes a busy machine a while to begin
	s, err := r.Select(t.Context(), "a", everything, 0, 1, nil, anyName())
	require.NoError(t, err)
	require.False(t, s.Series.Next())
	away(t, s.Series.Err())

	// One whose host takes connections and no more.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, err = impatient(t, l.Addr().String()).Plan(t.Context(), "a", everything, 0, 1)
	away(t, err)

	// The caller's own end is not the ingester's fault.
	r = impatient(t, silentServer(t, hang))
	r.client.cfg.SilenceTimeout = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = r.Plan(ctx, "a", everything, 0, 1)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, duramenpb.ErrAway)

	// The server may be the first to notice it.
	err = broken(t.Context(), t.Context(), "x", status.Error(codes.DeadlineExceeded, "stream terminated"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, duramenpb.ErrAway)
}

// TestAnIngesterAtWorkIsNotAway: it says that it is.
func TestAnIngesterAtWorkIsNotAway(t *testing.T) {
	t.Parallel()
	i := newIngester(t, false)
	fillExtras(t, i)
	held := &heldIngester{Ingester: i, enter: make(chan struct{}), leave: make(chan struct{})}
	w := startWire(t, held, func(s *ReadServer) { s.alive = 20 * time.Millisecond })
	r := impatient(t, w.address)
	r.client.cfg.SilenceTimeout = 2 * time.Second
	result := make(chan error)
	go func() {
		_, err := r.Plan(t.Context(), "a", everything, 0, 1)
		result <- err
	}()
	<-held.enter
	time.Sleep(2500 * time.Millisecond) // longer than the silence that the client bears
	close(held.leave)
	require.NoError(t, <-result)
}

// heldIngester holds a Plan until it may leave.
type heldIngester struct {
	*ingester.Ingester
	enter, leave chan struct{}
}

func (h *heldIngester) Plan(ctx context.Context, id string, view duramenpb.View, mint, maxt int64) (
	duramenpb.Held, error,
) {
	h.enter <- struct{}{}
	<-h.leave
	return h.Ingester.Plan(ctx, id, view, mint, maxt)
}
