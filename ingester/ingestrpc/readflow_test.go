package ingestrpc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/ingester"
	"github.com/duramendb/duramen/internal/errkind"
)

// TestAClosedSelectionEndsTheCall: the ingester's querier is closed soon, and a reader gets no short answer.
func TestAClosedSelectionEndsTheCall(t *testing.T) {
	counted := &countedIngester{Ingester: newIngester(t, false)}
	fillWide(t, counted.Ingester)
	w := startWire(t, counted, nil)
	s, err := w.Select(t.Context(), "a", everything, 0, math.MaxInt64, nil, anyName())
	require.NoError(t, err)
	require.True(t, s.Series.Next())
	s.Close()
	for s.Series.Next() {
	}
	require.Error(t, s.Series.Err())
	require.NotErrorIs(t, s.Series.Err(), duramenpb.ErrAway)
	require.Eventually(t, func() bool { return counted.open() == 0 }, 10*time.Second, time.Millisecond)

	ctx, cancel := context.WithCancel(t.Context())
	s, err = w.Select(ctx, "a", everything, 0, math.MaxInt64, nil, anyName())
	require.NoError(t, err)
	cancel()
	for s.Series.Next() {
	}
	require.ErrorIs(t, s.Series.Err(), context.Canceled)
	require.Eventually(t, func() bool { return counted.open() == 0 }, 10*time.Second, time.Millisecond)
}

// countedIngester counts queriers that are open, and chunks that were read.
type countedIngester struct {
	*ingester.Ingester

	mu      sync.Mutex
	queries int
	series  int
}

func (c *countedIngester) open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queries
}

func (c *countedIngester) read() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.series
}

func (c *countedIngester) ChunkQuerier(ctx context.Context, id string, view duramenpb.View, mint, maxt int64) (
	storage.ChunkQuerier, duramenpb.Held, error,
) {
	q, held, err := c.Ingester.ChunkQuerier(ctx, id, view, mint, maxt)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queries++
	return &countedQuerier{q, c}, held, err
}

type countedQuerier struct {
	storage.ChunkQuerier
	c *countedIngester
}

func (q *countedQuerier) Close() error {
	q.c.mu.Lock()
	defer q.c.mu.Unlock()
	q.c.queries--
	return q.ChunkQuerier.Close()
}

func (q *countedQuerier) Select(
	ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher,
) storage.ChunkSeriesSet {
	return &countedSet{q.ChunkQuerier.Select(ctx, sorted, hints, ms...), q.c}
}

type countedSet struct {
	storage.ChunkSeriesSet
	c *countedIngester
}

func (s *countedSet) Next() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.series++
	return s.ChunkSeriesSet.Next()
}

// manySeries are 800 KB on the wire: more than windows and queues hold.
const manySeries = 12_000

func fillWide(t testing.TB, i *ingester.Ingester) {
	t.Helper()
	b := &batch{}
	for n := range manySeries {
		lset := labels.FromStrings("__name__", "x", "i", fmt.Sprintf("%07d and some more to make it long", n))
		b.floats(lset, 1, testStart.UnixMilli())
	}
	push(t, i, b)
}

// TestASlowReaderHoldsNoMemoryAndIsEnded: the ingester reads no further than what the wire takes, and ends the answer when
// nobody reads on. The reader gets an error.
func TestASlowReaderHoldsNoMemoryAndIsEnded(t *testing.T) {
	counted := &countedIngester{Ingester: newIngester(t, false)}
	const all = manySeries
	fillWide(t, counted.Ingester)
	w := startWire(t, counted, func(s *ReadServer) { s.cfg.StallTimeout, s.frame = 200*time.Millisecond, 4096 })
	s, err := w.Select(t.Context(), "a", everything, 0, math.MaxInt64, nil, anyName())
	require.NoError(t, err)
	defer s.Close()
	require.True(t, s.Series.Next())
	require.Eventually(t, func() bool { return counted.open() == 0 }, 20*time.Second, time.Millisecond,
		"nothing holds back cuts any more")
	// A stream's window, gRPC's queue for it, and two frames: some 350 KiB.
	require.Less(t, counted.read(), all*3/4)
	require.InDelta(t, 1, testutil.ToFloat64(w.server.metrics.stalled), 0)
	n := 1
	for s.Series.Next() {
		n++
	}
	require.Less(t, n, all)
	require.Error(t, s.Series.Err())
	away(t, s.Series.Err())
}

// TestAReaderThatTakesItsTimeGetsAll: what counts is progress, not the whole time.
func TestAReaderThatTakesItsTimeGetsAll(t *testing.T) {
	i := newIngester(t, false)
	fillWide(t, i)
	w := startWire(t, i, func(s *ReadServer) { s.cfg.StallTimeout = 300 * time.Millisecond })
	s, err := w.Select(t.Context(), "a", everything, 0, math.MaxInt64, nil, anyName())
	require.NoError(t, err)
	defer s.Close()
	n := 0
	for s.Series.Next() {
		if n++; n%(manySeries/20) == 0 {
			time.Sleep(25 * time.Millisecond) // half a second in all
		}
	}
	require.NoError(t, s.Series.Err())
	require.Equal(t, manySeries, n)
}

// TestTheNumberOfReadsIsBounded: in all, and by tenant so that others find a place.
func TestTheNumberOfReadsIsBounded(t *testing.T) {
	g := newGate(8)
	for range 6 {
		require.NoError(t, g.enter("a"))
	}
	err := g.enter("a")
	require.Equal(t, errkind.Limited, errkind.Of(err))
	require.Positive(t, errkind.RetryAfter(err))
	require.ErrorContains(t, err, "6 of them of this tenant; at most 8")
	require.NoError(t, g.enter("b"))
	require.NoError(t, g.enter("c"))
	require.Error(t, g.enter("d"))
	g.leave("a")
	require.NoError(t, g.enter("d"))
	for _, id := range []string{"a", "a", "a", "a", "a", "b", "c", "d"} {
		g.leave(id)
	}
	require.Zero(t, g.open)
	require.Empty(t, g.byTenant)

	held := &heldIngester{Ingester: newIngester(t, false), enter: make(chan struct{}), leave: make(chan struct{})}
	w := startWire(t, held, func(s *ReadServer) { s.gate = newGate(1) })
	var work sync.WaitGroup
	work.Go(func() { _, _ = w.Plan(t.Context(), "a", everything, 0, 1) })
	<-held.enter
	_, err = w.UserStats(t.Context(), "b")
	require.Equal(t, errkind.Limited, errkind.Of(err))
	require.NotErrorIs(t, err, duramenpb.ErrAway)
	require.Positive(t, errkind.RetryAfter(err))
	close(held.leave)
	work.Wait()
	require.Eventually(t, func() bool {
		_, err := w.UserStats(t.Context(), "b")
		return err == nil
	}, 10*time.Second, time.Millisecond)
	require.GreaterOrEqual(t, testutil.ToFloat64(w.server.metrics.refused), 1.0)
}

// TestHeldIsWhatTheQuerierHad: floor and versions pass through each call that has them, and say that a view does not fit.
func TestHeldIsWhatTheQuerierHad(t *testing.T) {
	i := newIngester(t, false)
	want := duramenpb.Held{Floor: -17, DeletedVersion: math.MaxUint64}
	w := startWire(t, &heldAs{i, want}, nil)
	view := duramenpb.View{Version: 5, Cut: 9}
	held, err := w.Plan(t.Context(), "a", view, 0, 10)
	require.NoError(t, err)
	require.Equal(t, want, held)
	s, err := w.Select(t.Context(), "a", view, 0, 10, nil, anyName())
	require.NoError(t, err)
	defer s.Close()
	require.Equal(t, want, s.Held)
	require.False(t, s.Held.Fits(view, 0))
	_, held, err = w.LabelValues(t.Context(), "a", view, 0, 10, "x", nil)
	require.NoError(t, err)
	require.Equal(t, want, held)
	_, held, err = w.LabelNames(t.Context(), "a", view, 0, 10, nil)
	require.NoError(t, err)
	require.Equal(t, want, held)
}

type heldAs struct {
	*ingester.Ingester
	held duramenpb.Held
}

func (h *heldAs) Plan(context.Context, string, duramenpb.View, int64, int64) (duramenpb.Held, error) {
	return h.held, nil
}

func (h *heldAs) ChunkQuerier(_ context.Context, _ string, view duramenpb.View, mint, maxt int64) (
	storage.ChunkQuerier, duramenpb.Held, error,
) {
	if view != (duramenpb.View{Version: 5, Cut: 9}) || mint != 0 || maxt != 10 {
		return nil, h.held, errors.New("the view is another")
	}
	return storage.NoopChunkedQuerier(), h.held, nil
}

// TestSeriesWithoutChunks: who lists series gets their labels only.
func TestSeriesWithoutChunks(t *testing.T) {
	i := newIngester(t, false)
	fill(t, i, seeded(t), 5, false)
	w := startWire(t, i, nil)
	s, err := w.Select(t.Context(), "a", everything, 0, math.MaxInt64,
		&storage.SelectHints{Start: 0, End: math.MaxInt64, Func: listsSeries}, anyName())
	require.NoError(t, err)
	defer s.Close()
	set, err := readSet(s.Series)
	require.NoError(t, err)
	require.Len(t, set, 5)
	for _, s := range set {
		require.Empty(t, s.chunks)
	}
}

// TestOutboxGivesUp: with a clock of its own.
func TestOutboxGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		stream := &stuckStream{ctx: ctx}
		o := newOutbox(stream, time.Minute, newReadServerMetrics(nil))
		var sending sync.WaitGroup
		sending.Go(func() { o.run(stream, time.Second) })
		began := time.Now()
		require.NoError(t, o.send([]byte{1}))
		err := o.send([]byte{2})
		require.ErrorIs(t, err, errStalled)
		require.Equal(t, errkind.Unavailable, errkind.Of(err))
		require.Equal(t, time.Minute, time.Since(began))
		cancel() // as gRPC does when the handler returns
		o.close()
		sending.Wait()
	})
}

// stuckStream takes nothing until its context ends.
type stuckStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stuckStream) Context() context.Context { return s.ctx }

func (s *stuckStream) SendMsg(any) error {
	<-s.ctx.Done()
	return s.ctx.Err()
}
