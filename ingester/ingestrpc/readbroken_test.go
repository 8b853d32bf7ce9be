package ingestrpc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/ingester"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/rpcframe"
)

// away demands the error of an ingester that did not answer.
func away(t testing.TB, err error) {
	t.Helper()
	require.ErrorIs(t, err, duramenpb.ErrAway)
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
}

// relay is a server between a client and a wire. What it passes on is up to the test.
type relay struct {
	to *wire
	// frame is called with each frame of an answer and its number, from 0. It returns what to send in its place; an error
	// ends the call, errCleanEnd as if all were well.
	frame func(ctx context.Context, n int, frame []byte) ([][]byte, error)
}

var errCleanEnd = errors.New("end the call with success")

func (r *relay) handle(_ any, in grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(in)
	ctx, cancel := context.WithCancel(in.Context())
	defer cancel()
	md, _ := metadata.FromIncomingContext(ctx)
	conn, release, err := r.to.client.dial(r.to.address)
	if err != nil {
		return err
	}
	defer release()
	out, err := conn.NewStream(metadata.NewOutgoingContext(ctx, md), &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		return err
	}
	var f rpcframe.Frame
	if err := in.RecvMsg(&f); err != nil {
		return err
	}
	if err := errors.Join(out.SendMsg(&f), out.CloseSend()); err != nil {
		return err
	}
	for n := 0; ; n++ {
		var f rpcframe.Frame
		if err := out.RecvMsg(&f); err != nil {
			return status.Error(codes.Unavailable, "relay: "+err.Error())
		}
		frames, err := r.frame(ctx, n, f)
		for _, f := range frames {
			if err := in.SendMsg((*rpcframe.Frame)(&f)); err != nil {
				return err
			}
		}
		if errors.Is(err, errCleanEnd) {
			return nil
		}
		if err != nil {
			return err
		}
		if f[0] == frameDone {
			return nil
		}
	}
}

// startRelay returns a reader behind a relay.
func startRelay(t *testing.T, r *relay) *Reader {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer(grpc.ForceServerCodecV2(rpcframe.Codec{}), grpc.UnknownServiceHandler(r.handle),
		grpc.WaitForHandlers(true))
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	_, reader := dialWire(t, l.Addr().String(), defaultClient(), nil)
	t.Cleanup(func() {
		server.Stop()
		served.Wait()
	})
	return reader
}

// smallFrames makes answers of many frames.
func smallFrames(s *ReadServer) { s.frame = 500 }

// question is one of the calls, and what it answered as a text.
type question struct {
	name string
	ask  func(ctx context.Context, r *Reader) (string, error)
}

func questions() []question {
	from, to := int64(0), testStart.UnixMilli()+1e9
	return []question{
		{"Plan", func(ctx context.Context, r *Reader) (string, error) {
			held, err := r.Plan(ctx, "a", everything, from, to)
			return fmt.Sprint(held), err
		}},
		{"Select", func(ctx context.Context, r *Reader) (string, error) {
			set, _, err := selectAll(ctx, r, everything, from, to, anyName())
			text := ""
			for _, s := range set {
				text += fmt.Sprintln(s.labels, len(s.chunks))
				for _, c := range s.chunks {
					text += fmt.Sprintln(c.MinTime, c.MaxTime, c.Chunk.Encoding(), string(c.Chunk.Bytes()))
				}
			}
			return text, err
		}},
		{"LabelValues", func(ctx context.Context, r *Reader) (string, error) {
			values, held, err := r.LabelValues(ctx, "a", everything, from, to, "i", nil, anyName())
			return fmt.Sprint(values, held), err
		}},
		{"LabelNames", func(ctx context.Context, r *Reader) (string, error) {
			values, held, err := r.LabelNames(ctx, "a", everything, from, to, &storage.LabelHints{Limit: 3})
			return fmt.Sprint(values, held), err
		}},
		{"Exemplars", func(ctx context.Context, r *Reader) (string, error) {
			found, err := r.Exemplars(ctx, "a", from, to, []*labels.Matcher{anyName()})
			return fmt.Sprint(found), err
		}},
		{"Metadata", func(ctx context.Context, r *Reader) (string, error) {
			found, err := r.Metadata(ctx, "a", "")
			return fmt.Sprint(found), err
		}},
		{"HeadStats", func(ctx context.Context, r *Reader) (string, error) {
			found, err := r.HeadStats(ctx, "a", 50)
			return fmt.Sprint(found), err
		}},
		{"UserStats", func(ctx context.Context, r *Reader) (string, error) {
			found, err := r.UserStats(ctx, "a")
			return fmt.Sprint(found), err
		}},
	}
}

// fillExtras pushes exemplars and metadata to what is there.
func fillExtras(t testing.TB, i *ingester.Ingester) {
	t.Helper()
	b, t0 := &batch{}, testStart.UnixMilli()
	for n := range 40 {
		b.Floats = append(b.Floats, duramenpb.Float{T: t0, V: 1})
		for e := range int64(3) {
			b.Exemplars = append(b.Exemplars, duramenpb.Exemplar{
				T: t0 - 10 + e, V: math.Pi, Labels: labels.FromStrings("trace_id", fmt.Sprint(n, e)),
			})
		}
		b.end(duramenpb.Series{Labels: labels.FromStrings("__name__", "x", "i", fmt.Sprintf("value %03d of the label", n))})
		b.Metadata = append(b.Metadata, duramenpb.Metadata{
			Family: fmt.Sprintf("x%d", n), Type: "counter", Help: "help of \xff", Unit: "seconds",
		})
	}
	require.Eventually(t, func() bool { // the first ones have no place while a cut goes on
		return push(t, i, b).Exemplars == 120
	}, 10*time.Second, time.Millisecond)
}

// TestEachCallSaysWhatTheIngesterSays compares all calls but Select with the reader in this process.
func TestEachCallSaysWhatTheIngesterSays(t *testing.T) {
	i := newIngester(t, false)
	fillExtras(t, i)
	w := startWire(t, i, smallFrames)
	l := NewLocalReader(i)
	ctx, from, to := t.Context(), int64(0), testStart.UnixMilli()
	for range 2 { // of a tenant with data, and of one without
		for _, id := range []string{"a", "nobody"} {
			view := duramenpb.View{Version: 3, Cut: to}
			held, err := w.Plan(ctx, id, view, from, to)
			require.NoError(t, err)
			wantHeld, err := l.Plan(ctx, id, view, from, to)
			require.NoError(t, err)
			require.Equal(t, wantHeld, held)
			for _, hints := range []*storage.LabelHints{nil, {Limit: 7}} {
				got, held, err := w.LabelValues(ctx, id, view, from, to, "i", hints, anyName())
				require.NoError(t, err)
				want, wantHeld, err := l.LabelValues(ctx, id, view, from, to, "i", hints, anyName())
				require.NoError(t, err)
				require.ElementsMatch(t, want, got)
				require.Equal(t, wantHeld, held)
				got, _, err = w.LabelNames(ctx, id, view, from, to, hints, anyName())
				require.NoError(t, err)
				want, _, err = l.LabelNames(ctx, id, view, from, to, hints, anyName())
				require.NoError(t, err)
				require.ElementsMatch(t, want, got)
			}
			sets := [][]*labels.Matcher{
				{anyName(), labels.MustNewMatcher(labels.MatchRegexp, "i", "value 00.*")},
				{labels.MustNewMatcher(labels.MatchRegexp, "i", "value 02.*")},
			}
			exemplars, err := w.Exemplars(ctx, id, from, to, sets...)
			require.NoError(t, err)
			wantExemplars, err := l.Exemplars(ctx, id, from, to, sets...)
			require.NoError(t, err)
			require.Equal(t, wantExemplars, exemplars)
			for _, family := range []string{"", "x7", "none"} {
				got, err := w.Metadata(ctx, id, family)
				require.NoError(t, err)
				want, err := l.Metadata(ctx, id, family)
				require.NoError(t, err)
				require.ElementsMatch(t, want, got)
			}
			head, err := w.HeadStats(ctx, id, 20)
			require.NoError(t, err)
			wantHead, err := l.HeadStats(ctx, id, 20)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(wantHead), fmt.Sprint(head))
			user, err := w.UserStats(ctx, id)
			require.NoError(t, err)
			wantUser, err := l.UserStats(ctx, id)
			require.NoError(t, err)
			require.Equal(t, wantUser, user)
		}
		_, err := i.Flush(ctx, "a", true)
		require.NoError(t, err)
	}
}

// TestAnAnswerThatIsCutIsAnError cuts each call's answer behind each frame, in four ways, and leaves out each frame.
func TestAnAnswerThatIsCutIsAnError(t *testing.T) {
	i := newIngester(t, false)
	fill(t, i, seeded(t), 5, false)
	fillExtras(t, i)
	w := startWire(t, i, smallFrames)
	var cut atomic.Pointer[damage] // a call that was left may go on behind the relay for a while
	var frames atomic.Int64
	reader := startRelay(t, &relay{to: w, frame: func(_ context.Context, n int, frame []byte) ([][]byte, error) {
		frames.Store(int64(n) + 1)
		return cut.Load().frame(n, frame)
	}})
	for _, q := range questions() {
		cut.Store(&damage{at: -1})
		want, err := q.ask(t.Context(), reader)
		require.NoError(t, err, q.name)
		whole := int(frames.Load())
		require.GreaterOrEqual(t, whole, 2, q.name)
		got, err := q.ask(t.Context(), w.Reader)
		require.NoError(t, err)
		require.Equal(t, want, got, q.name)
		for at := 0; at < whole; at += max(1, min(whole/10, whole-1-at)) {
			for _, how := range []string{"success", "status", "left out", "half of it", "twice"} {
				if how == "twice" && at == whole-1 {
					continue // nobody reads behind the end
				}
				cut.Store(&damage{at, how})
				_, err := q.ask(t.Context(), reader)
				require.ErrorIs(t, err, duramenpb.ErrAway, "%s, frame %d of %d: %s", q.name, at, whole, how)
				require.Equal(t, errkind.Unavailable, errkind.Of(err))
			}
		}
	}
}

// damage is what happens to one frame of an answer.
type damage struct {
	at  int
	how string
}

func (d *damage) frame(n int, frame []byte) ([][]byte, error) {
	switch {
	case n != d.at:
		return [][]byte{frame}, nil
	case d.how == "success":
		return nil, errCleanEnd
	case d.how == "status":
		return nil, status.Error(codes.Internal, "stream is reset")
	case d.how == "half of it":
		return [][]byte{frame[:len(frame)/2]}, nil
	case d.how == "twice":
		return [][]byte{frame, frame}, nil
	}
	return nil, nil
}

func TestErrorsKeepTheirKinds(t *testing.T) {
	i := newIngester(t, false)
	for _, want := range []error{
		errkind.New(errkind.Unavailable, "starting"),
		&errkind.Error{Kind: errkind.Limited, RetryAfter: 3 * time.Second, Err: errors.New("too many")},
		errkind.New(errkind.Corrupt, "block is damaged"),
		errkind.New(errkind.Invalid, "no"),
		errkind.New(errkind.Unprocessable, "too much"),
		errors.New("internal"),
	} {
		w := startWire(t, &failingIngester{Readable: i, err: want}, nil)
		for _, q := range questions() {
			_, err := q.ask(t.Context(), w.Reader)
			require.Equal(t, errkind.Of(want), errkind.Of(err), "%s: %v", q.name, err)
			require.Equal(t, errkind.RetryAfter(want), errkind.RetryAfter(err), q.name)
			require.ErrorContains(t, err, want.Error(), q.name)
			require.NotErrorIs(t, err, duramenpb.ErrAway, "it is the ingester's own answer")
		}
		require.InDelta(t, len(questions()), testutil.ToFloat64(w.client.metrics.calls.WithLabelValues(outcomeRefused)), 0)
	}
	_, err := startWire(t, i, nil).Plan(t.Context(), "no/tenant", everything, 0, 1)
	require.Equal(t, errkind.Invalid, errkind.Of(err))
	require.NotErrorIs(t, err, duramenpb.ErrAway)
}

// failingIngester answers all with an error.
type failingIngester struct {
	Readable
	err error
}

func (f *failingIngester) Plan(context.Context, string, duramenpb.View, int64, int64) (duramenpb.Held, error) {
	return duramenpb.Held{}, f.err
}

func (f *failingIngester) ChunkQuerier(context.Context, string, duramenpb.View, int64, int64) (
	storage.ChunkQuerier, duramenpb.Held, error,
) {
	return nil, duramenpb.Held{}, f.err
}

func (f *failingIngester) Exemplars(context.Context, string, int64, int64, ...[]*labels.Matcher) (
	[]exemplar.QueryResult, error,
) {
	return nil, f.err
}

func (f *failingIngester) Metadata(context.Context, string, string) ([]duramenpb.Metadata, error) {
	return nil, f.err
}

func (f *failingIngester) HeadStats(context.Context, string, int) (duramenpb.HeadStats, error) {
	return duramenpb.HeadStats{}, f.err
}

func (f *failingIngester) UserStats(context.Context, string) (duramenpb.UserStats, error) {
	return duramenpb.UserStats{}, f.err
}

// TestAnErrorInTheMiddleIsTheAnswers: series that came before it are no answer.
func TestAnErrorInTheMiddleIsTheAnswers(t *testing.T) {
	i := newIngester(t, false)
	fill(t, i, seeded(t), 5, false)
	w := startWire(t, &brokenChunks{i}, smallFrames)
	s, err := w.Select(t.Context(), "a", everything, 0, math.MaxInt64, nil, anyName())
	require.NoError(t, err)
	defer s.Close()
	_, err = readSet(s.Series)
	require.Equal(t, errkind.Corrupt, errkind.Of(err))
	require.ErrorContains(t, err, "chunk is damaged")
	require.NotErrorIs(t, err, duramenpb.ErrAway)
}

// brokenChunks fails at the third series.
type brokenChunks struct{ *ingester.Ingester }

func (b *brokenChunks) ChunkQuerier(ctx context.Context, id string, view duramenpb.View, mint, maxt int64) (
	storage.ChunkQuerier, duramenpb.Held, error,
) {
	q, held, err := b.Ingester.ChunkQuerier(ctx, id, view, mint, maxt)
	return &brokenQuerier{q}, held, err
}

type brokenQuerier struct{ storage.ChunkQuerier }

func (b *brokenQuerier) Select(
	ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher,
) storage.ChunkSeriesSet {
	return &brokenSet{ChunkSeriesSet: b.ChunkQuerier.Select(ctx, sorted, hints, ms...)}
}

type brokenSet struct {
	storage.ChunkSeriesSet
	n int
}

func (b *brokenSet) Next() bool {
	b.n++
	return b.n < 3 && b.ChunkSeriesSet.Next()
}

func (b *brokenSet) Err() error { return errkind.New(errkind.Corrupt, "chunk is damaged") }

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
	i := newIngester(t, false)
	fillExtras(t, i)
	held := &heldIngester{Ingester: i, enter: make(chan struct{}), leave: make(chan struct{})}
	w := startWire(t, held, func(s *ReadServer) { s.alive = 20 * time.Millisecond })
	r := impatient(t, w.address)
	r.client.cfg.SilenceTimeout = 300 * time.Millisecond
	result := make(chan error)
	go func() {
		_, err := r.Plan(t.Context(), "a", everything, 0, 1)
		result <- err
	}()
	<-held.enter
	time.Sleep(600 * time.Millisecond) // longer than the silence that the client bears
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
