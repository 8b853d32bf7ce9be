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
