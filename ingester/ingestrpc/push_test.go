package ingestrpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/faultproxy"
	"github.com/duramendb/duramen/internal/rpcframe"
)

// bothWays runs a test against an ingester over the network and against one in the same process.
func bothWays(t *testing.T, test func(t *testing.T, s sender, gate *pushGate)) {
	t.Run("remote", func(t *testing.T) {
		server := servePushes(t, newIngester(t, false), ServerConfig{}, "127.0.0.1:0")
		test(t, pushClient(t, ClientConfig{}).Peer(server.address), server.gate)
	})
	t.Run("local", func(t *testing.T) {
		g := &pushGate{Pusher: newIngester(t, false)}
		l := NewLocal(ClientConfig{MaxInflightBytes: 32 << 20}, g, slog.New(slog.DiscardHandler))
		g.commits = l.commits
		t.Cleanup(func() {
			require.NoError(t, l.Close())
			require.Zero(t, l.inflight.Load())
		})
		test(t, l, g)
	})
}

func testStartMillis() int64 { return testStart.UnixMilli() }

// randomWrite makes a batch over few series and times, so that samples are refused too.
func randomWrite(r *rand.Rand, known map[string]uint64, incarnation uint64) (*duramenpb.Batch, []string) {
	b, names := &batch{}, []string(nil)
	b.Incarnation = incarnation
	for range 1 + r.IntN(6) {
		lset := labels.FromStrings(labels.MetricName, "m", "i", fmt.Sprint(r.IntN(8)))
		for range r.IntN(4) {
			at := testStartMillis() - int64(r.IntN(10))*60_000 - int64(r.IntN(2))*int64(r.IntN(20))*3_600_000
			if r.IntN(4) == 0 {
				h := &histogram.Histogram{
					Schema: 1, Count: 3, Sum: 2, ZeroCount: 1, PositiveSpans: []histogram.Span{{Offset: int32(r.IntN(3)), Length: 1}},
					PositiveBuckets: []int64{2},
				}
				b.Histograms = append(b.Histograms, duramenpb.Histogram{T: at, H: h})
			} else {
				b.Floats = append(b.Floats, duramenpb.Float{T: at, V: float64(r.IntN(2))})
			}
		}
		s := duramenpb.Series{Labels: lset}
		if ref := known[lset.String()]; ref != 0 && r.IntN(2) == 0 {
			s = duramenpb.Series{Ref: ref}
		}
		b.end(s)
		names = append(names, lset.String())
	}
	return &b.Batch, names
}

// TestAWriteOverTheWireIsTheSameWrite: what a batch does to an ingester and what is answered is the same as in a call.
func TestAWriteOverTheWireIsTheSameWrite(t *testing.T) {
	bothWays(t, func(t *testing.T, s sender, gate *pushGate) {
		direct := newIngester(t, false)
		r := rand.New(rand.NewPCG(5, 6))
		known, knownDirect := map[string]uint64{}, map[string]uint64{}
		var life, lifeDirect uint64
		for range 200 {
			seed := r.Uint64()
			b, names := randomWrite(rand.New(rand.NewPCG(seed, 0)), known, life)
			bd, _ := randomWrite(rand.New(rand.NewPCG(seed, 0)), knownDirect, lifeDirect)
			var want duramenpb.PushResult
			require.NoError(t, direct.Push(t.Context(), "a", bd, &want))
			got, err := sendBatch(t.Context(), s, "a", b).wait(t)
			require.NoError(t, err)
			require.Equal(t, []int{want.Floats, want.Histograms}, []int{got.Floats, got.Histograms})
			require.Len(t, got.Stale, len(want.Stale))
			require.Len(t, got.Refused, len(want.Refused))
			for i := range want.Refused {
				require.Equal(t, want.Refused[i], got.Refused[i])
			}
			life, lifeDirect = got.Incarnation, want.Incarnation
			for i := range b.Series {
				if b.Series[i].Ref == 0 {
					require.Equal(t, want.Refs[i] == 0, got.Refs[i] == 0)
					known[names[i]], knownDirect[names[i]] = got.Refs[i], want.Refs[i]
				}
			}
		}
		stored := ingesterOf(t, gate)
		require.Equal(t, contents(t, direct, "a"), contents(t, stored, "a"))
	})
}

func TestTenantsSeriesExemplarsAndMetadataArrive(t *testing.T) {
	bothWays(t, func(t *testing.T, s sender, gate *pushGate) {
		at := testStartMillis()
		var all []*verdict
		for n := range 20 {
			b := labelled("m", 3+n, at)
			b.Exemplars = append(b.Exemplars, duramenpb.Exemplar{T: at, V: 1.5, Labels: labels.FromStrings("trace", fmt.Sprint(n))})
			b.Series[len(b.Series)-1].ExemplarsEnd = 1
			b.Metadata = []duramenpb.Metadata{{Family: "m", Type: "counter", Help: "help", Unit: "s"}}
			all = append(all, sendBatch(t.Context(), s, fmt.Sprint("tenant", n%7), b))
		}
		for n, v := range all {
			r, err := v.wait(t)
			require.NoError(t, err)
			require.Equal(t, 3+n, r.Floats)
			require.Equal(t, 1, r.Exemplars)
			require.Len(t, r.Refs, 3+n)
		}
		i := ingesterOf(t, gate)
		for n := range 7 {
			id := fmt.Sprint("tenant", n)
			require.Len(t, contents(t, i, id), 3+n+7*((19-n)/7))
			found, err := i.Exemplars(t.Context(), id, at, at, []*labels.Matcher{anyName()})
			require.NoError(t, err)
			require.NotEmpty(t, found)
			metadata, err := i.Metadata(t.Context(), id, "m")
			require.NoError(t, err)
			require.Equal(t, []duramenpb.Metadata{{Family: "m", Type: "counter", Help: "help", Unit: "s"}}, metadata)
		}
	})
}

// TestSectionsThatComeTogetherArePushedTogether, and each gets its own part of the verdict.
func TestSectionsThatComeTogetherArePushedTogether(t *testing.T) {
	bothWays(t, func(t *testing.T, s sender, gate *pushGate) {
		at := testStartMillis()
		first, err := sendBatch(t.Context(), s, "a", labelled("m", 4, at)).wait(t)
		require.NoError(t, err)
		open := gate.close()
		defer open()
		before, _ := gate.counts()
		held := sendBatch(t.Context(), s, "a", references(first, at+1))
		soon(t, "it is inside", func() bool { _, inside := gate.counts(); return inside == 1 })

		var all []*verdict
		for n := range 10 {
			b := references(first, at+2+int64(n))
			if n%2 == 1 { // of another value at a time that is held
				b.Floats[2].T, b.Floats[2].V = at, -1
			}
			if n == 4 { // of an earlier life
				b.Incarnation++
			}
			all = append(all, sendBatch(t.Context(), s, "a", b))
		}
		require.False(t, held.isDone())
		soon(t, "all have arrived", func() bool { return gate.waiting() == 10 })
		open()
		for n, v := range all {
			r, err := v.wait(t)
			require.NoError(t, err)
			switch {
			case n == 4:
				require.Equal(t, []int{0, 1, 2, 3}, r.Stale)
				require.Zero(t, r.Floats)
			case n%2 == 1:
				require.Equal(t, 3, r.Floats, n)
				require.Len(t, r.Refused, 1)
				require.Equal(t, []int32{2}, r.Refused[0].Samples)
				require.Equal(t, 2, r.Refused[0].Series)
			default:
				require.Equal(t, 4, r.Floats)
				require.Empty(t, r.Refused)
			}
			require.Empty(t, r.Refs, "no series went with labels")
			require.Equal(t, first.Incarnation, r.Incarnation)
		}
		after, _ := gate.counts()
		require.Equal(t, 4, after-before, "what was held, what came before the other life, that, and what came after it")
	})
}

func TestReferencesOfAnotherLifeAreStale(t *testing.T) {
	first := servePushes(t, newIngester(t, false), ServerConfig{}, "127.0.0.1:0")
	p := pushClient(t, ClientConfig{}).Peer(first.address)
	at := testStartMillis()
	r, err := sendBatch(t.Context(), p, "a", labelled("m", 3, at)).wait(t)
	require.NoError(t, err)
	first.stop()
	soon(t, "the peer is seen to be away", func() bool {
		_, err := sendBatch(t.Context(), p, "a", references(r, at+1)).wait(t)
		require.Equal(t, errkind.Unavailable, errkind.Of(err))
		return p.Failing()
	})

	again := newIngester(t, false)
	servePushes(t, again, ServerConfig{}, first.address)
	soon(t, "the peer is back", func() bool { return !p.Failing() })
	stale, err := sendBatch(t.Context(), p, "a", references(r, at+1)).wait(t)
	require.NoError(t, err)
	require.Equal(t, []int{0, 1, 2}, stale.Stale)
	require.Zero(t, stale.Floats)
	require.Empty(t, contents(t, again, "a"))
	fresh, err := sendBatch(t.Context(), p, "a", labelled("m", 3, at+1)).wait(t)
	require.NoError(t, err)
	require.NotEqual(t, r.Incarnation, fresh.Incarnation)
	require.Equal(t, 3, fresh.Floats)
}

// TestABrokenConnectionFailsWhatIsOwedOnce, and the next section goes over a new one.
func TestABrokenConnectionFailsWhatIsOwedOnce(t *testing.T) {
	i := newIngester(t, false)
	server := servePushes(t, i, ServerConfig{}, "127.0.0.1:0")
	cable := faultproxy.StartCable(t, server.address)
	p := pushClient(t, ClientConfig{}).Peer(cable.Address())
	at := testStartMillis()
	_, err := sendBatch(t.Context(), p, "a", labelled("m", 1, at)).wait(t)
	require.NoError(t, err)
	for round := range 3 {
		open := server.gate.close()
		var all []*verdict
		for n := range 50 {
			all = append(all, sendBatch(t.Context(), p, fmt.Sprint("t", n%5), labelled("m", 5, at+int64(100*round+n))))
		}
		soon(t, "all are on their way, and some inside", func() bool {
			_, inside := server.gate.counts()
			return inside > 0 && !p.lanes[0].waiting() && !p.lanes[1].waiting()
		})
		cable.Cut()
		for _, v := range all {
			_, err := v.wait(t)
			require.Equal(t, errkind.Unavailable, errkind.Of(err), "%v", err)
			require.ErrorContains(t, err, cable.Address())
		}
		open()
		soon(t, "a section passes again", func() bool {
			_, err := sendBatch(t.Context(), p, "a", labelled("m", 1, at+int64(round)+1)).wait(t)
			return err == nil
		})
		for _, v := range all {
			_, _ = v.wait(t) // still answered once
		}
	}
}

// TestAHangingPeerIsBounded: bytes on their way to it, the time that a section waits, and its time to be found out.
func TestAHangingPeerIsBounded(t *testing.T) {
	server := servePushes(t, newIngester(t, false), ServerConfig{}, "127.0.0.1:0")
	cable := faultproxy.StartCable(t, server.address)
	c := pushClient(t, ClientConfig{MaxInflightBytes: 1 << 20})
	p := c.Peer(cable.Address())
	at := testStartMillis()
	_, err := sendBatch(t.Context(), p, "a", labelled("m", 1, at)).wait(t)
	require.NoError(t, err)

	cable.Silence()
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err = sendBatch(ctx, p, "a", labelled("m", 1, at+1)).wait(t)
	require.ErrorIs(t, err, errLate)
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	require.GreaterOrEqual(t, time.Since(began), 150*time.Millisecond)

	var all []*verdict
	full := 0
	section := encodeBatch("a", labelled("m", 4000, at))
	for n := 0; full == 0; n++ {
		v := &verdict{came: make(chan struct{})}
		p.Send(t.Context(), "a", section, v.done)
		require.LessOrEqual(t, p.inflight.Load(), int64(1<<20))
		if v.isDone() {
			_, err := v.wait(t)
			require.ErrorIs(t, err, errFull)
			full++
		}
		all = append(all, v)
		require.Less(t, n, 1000)
	}
	for _, v := range all {
		_, err := v.wait(t)
		require.Equal(t, errkind.Unavailable, errkind.Of(err))
	}
	require.Less(t, time.Since(began), 5*time.Second)
	require.True(t, p.Failing())
	require.Zero(t, p.inflight.Load())
	v := sendBatch(t.Context(), p, "a", labelled("m", 1, at+1))
	require.True(t, v.isDone(), "refused at once")
	_, err = v.wait(t)
	require.ErrorIs(t, err, errAway)

	cable.Heal()
	soon(t, "it is back without being asked", func() bool { return !p.Failing() })
	_, err = sendBatch(t.Context(), p, "a", labelled("m", 1, at+2)).wait(t)
	require.NoError(t, err)
}

// TestASlowIngesterIsNotBuriedInMemory: beyond its buffer the server reads nothing more.
func TestASlowIngesterIsNotBuriedInMemory(t *testing.T) {
	i := newIngester(t, false)
	server := servePushes(t, i, ServerConfig{BufferBytes: 1 << 20}, "127.0.0.1:0")
	c := pushClient(t, ClientConfig{MaxInflightBytes: 3 << 20})
	p := c.Peer(server.address)
	open := server.gate.close()
	defer open()
	large := encodeBatch("a", &duramenpb.Batch{Metadata: []duramenpb.Metadata{
		{Family: "m", Type: "counter", Help: strings.Repeat("x", 50<<10)},
	}})
	var all []*verdict
	for {
		v := &verdict{came: make(chan struct{})}
		p.Send(t.Context(), "a", large, v.done)
		if v.isDone() {
			break
		}
		all = append(all, v)
	}
	require.Greater(t, p.inflight.Load(), int64(5<<19))
	soon(t, "the buffer fills", func() bool { return testutil.ToFloat64(server.server.metrics.buffered) > 900<<10 })
	require.Never(t, func() bool { return testutil.ToFloat64(server.server.metrics.buffered) > 1<<20 },
		50*time.Millisecond, 5*time.Millisecond)
	require.False(t, p.Failing(), "slow is not silent")
	open()
	for _, v := range all {
		_, err := v.wait(t)
		require.NoError(t, err)
	}
	metadata, err := i.Metadata(t.Context(), "a", "m")
	require.NoError(t, err)
	require.Len(t, metadata, 1)
	soon(t, "all is given back", func() bool { return testutil.ToFloat64(server.server.metrics.buffered) == 0 })
}

func TestErrorsKeepTheirKind(t *testing.T) {
	bothWays(t, func(t *testing.T, s sender, gate *pushGate) {
		gate.failing(func(id string, _ *duramenpb.Batch) error {
			switch id {
			case "limited":
				return &errkind.Error{Kind: errkind.Limited, RetryAfter: 1500 * time.Millisecond, Err: errors.New("too fast")}
			case "panic":
				panic("of a test")
			}
			return fmt.Errorf("push: %w", errkind.New(errkind.Unavailable, "no disk"))
		})
		_, err := sendBatch(t.Context(), s, "limited", labelled("m", 1, 1)).wait(t)
		require.Equal(t, errkind.Limited, errkind.Of(err))
		require.Equal(t, 1500*time.Millisecond, errkind.RetryAfter(err))
		require.ErrorContains(t, err, "too fast")
		_, err = sendBatch(t.Context(), s, "other", labelled("m", 1, 1)).wait(t)
		require.Equal(t, errkind.Unavailable, errkind.Of(err))
		require.ErrorContains(t, err, "push: no disk")
		_, err = sendBatch(t.Context(), s, "panic", labelled("m", 1, 1)).wait(t)
		require.Equal(t, errkind.Internal, errkind.Of(err))
		_, err = sendBatch(t.Context(), s, "..", labelled("m", 1, 1)).wait(t)
		require.Equal(t, errkind.Invalid, errkind.Of(err))

		section := encodeBatch("a", labelled("m", 1, 1))
		damaged := append([]byte(nil), section...)
		damaged = damaged[:len(damaged)-1]
		v := &verdict{came: make(chan struct{})}
		s.Send(t.Context(), "a", damaged, v.done)
		_, err = v.wait(t)
		require.Equal(t, errkind.Internal, errkind.Of(err))
		section[0] = duramenpb.SectionVersion + 1
		v = &verdict{came: make(chan struct{})}
		s.Send(t.Context(), "a", section, v.done)
		_, err = v.wait(t)
		require.Equal(t, errkind.Unavailable, errkind.Of(err), "another replica may know it")
		require.ErrorContains(t, err, "unknown version 2")

		v = &verdict{came: make(chan struct{})}
		s.Send(t.Context(), "a", make([]byte, duramenpb.MaxSectionBytes+1), v.done)
		_, err = v.wait(t)
		require.Error(t, err)

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		over := sendBatch(ctx, s, "other", labelled("m", 1, 1))
		require.True(t, over.isDone())
		_, err = over.wait(t)
		require.Equal(t, errkind.Unavailable, errkind.Of(err))
	})
}

// TestOnePoisonedSectionDoesNotFailItsNeighbours in the same push.
func TestOnePoisonedSectionDoesNotFailItsNeighbours(t *testing.T) {
	bothWays(t, func(t *testing.T, s sender, gate *pushGate) {
		open := gate.close()
		defer open()
		at := testStartMillis()
		held := sendBatch(t.Context(), s, "a", labelled("first", 1, at))
		soon(t, "it is inside", func() bool { _, inside := gate.counts(); return inside == 1 })
		gate.failing(func(_ string, b *duramenpb.Batch) error {
			for i := range b.Series {
				if b.Series[i].Labels.Get("poison") != "" {
					return errors.New("poisoned")
				}
			}
			return nil
		})
		var all []*verdict
		for n := range 5 {
			b := labelled("m", 2, at+int64(n))
			if n == 2 {
				b.Series[0].Labels = labels.FromStrings(labels.MetricName, "m", "poison", "x")
			}
			all = append(all, sendBatch(t.Context(), s, "a", b))
		}
		open()
		_, err := held.wait(t)
		require.NoError(t, err)
		for n, v := range all {
			r, err := v.wait(t)
			if n == 2 {
				require.ErrorContains(t, err, "poisoned")
				continue
			}
			require.NoError(t, err)
			require.Equal(t, 2, r.Floats)
		}
	})
}

// TestADrainedServerAnswersWhatItHas before its streams end, so that a restart loses no answer.
func TestADrainedServerAnswersWhatItHas(t *testing.T) {
	server := servePushes(t, newIngester(t, false), ServerConfig{}, "127.0.0.1:0")
	p := pushClient(t, ClientConfig{}).Peer(server.address)
	open := server.gate.close()
	defer open()
	at := testStartMillis()
	var all []*verdict
	for n := range 10 {
		all = append(all, sendBatch(t.Context(), p, "a", labelled("m", 2, at+int64(n))))
	}
	soon(t, "all have arrived", func() bool {
		_, inside := server.gate.counts()
		return inside == 1 && server.gate.series[0]/2+server.gate.waiting() == 10
	})
	server.server.Drain()
	open()
	for _, v := range all {
		_, err := v.wait(t)
		require.NoError(t, err)
	}
	soon(t, "further ones are refused", func() bool {
		_, err := sendBatch(t.Context(), p, "b", labelled("m", 2, at)).wait(t)
		require.Equal(t, errkind.Unavailable, errkind.Of(err))
		return strings.Contains(err.Error(), "shutting down")
	})
	stopped := make(chan struct{})
	go func() {
		server.grpc.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(20 * time.Second):
		t.Fatal("streams do not end")
	}
}

func TestClosingAnswersEverything(t *testing.T) {
	server := servePushes(t, newIngester(t, false), ServerConfig{}, "127.0.0.1:0")
	c := pushClient(t, ClientConfig{})
	p := c.Peer(server.address)
	open := server.gate.close()
	defer open()
	var all []*verdict
	for n := range 10 {
		all = append(all, sendBatch(t.Context(), p, fmt.Sprint("t", n), labelled("m", 2, testStartMillis())))
	}
	require.NoError(t, c.Close())
	for _, v := range all {
		require.True(t, v.isDone())
		_, err := v.wait(t)
		require.ErrorIs(t, err, errClientClosed)
	}
	for _, p := range []*Peer{p, c.Peer("127.0.0.1:1")} {
		v := sendBatch(t.Context(), p, "a", labelled("m", 2, 1))
		require.True(t, v.isDone())
		_, err := v.wait(t)
		require.ErrorIs(t, err, errClientClosed)
	}
}

func TestAForgottenPeerComesBack(t *testing.T) {
	server := servePushes(t, newIngester(t, false), ServerConfig{}, "127.0.0.1:0")
	c := pushClient(t, ClientConfig{})
	p := c.Peer(server.address)
	require.Same(t, p, c.Peer(server.address))
	at := testStartMillis()
	_, err := sendBatch(t.Context(), p, "a", labelled("m", 2, at)).wait(t)
	require.NoError(t, err)
	c.Keep(func(string) bool { return false })
	require.NotSame(t, p, c.Peer(server.address))
	_, err = sendBatch(t.Context(), p, "a", labelled("m", 2, at)).wait(t)
	require.NoError(t, err, "whoever still has it may use it")
}

// TestAnswersMaySend: whoever learns that references are stale sends labels at once.
func TestAnswersMaySend(t *testing.T) {
	bothWays(t, func(t *testing.T, s sender, _ *pushGate) {
		at := testStartMillis()
		last := &verdict{came: make(chan struct{})}
		b := references(&duramenpb.PushResult{Incarnation: 77, Refs: []uint64{5}}, at)
		s.Send(t.Context(), "a", encodeBatch("a", b), func(r *duramenpb.PushResult, err error) {
			if err != nil || len(r.Stale) != 1 {
				t.Errorf("%v %v", r, err)
			}
			s.Send(t.Context(), "a", encodeBatch("a", labelled("m", 1, at)), last.done)
		})
		r, err := last.wait(t)
		require.NoError(t, err)
		require.Equal(t, 1, r.Floats)
	})
}

// TestFramesOfAnotherVersionEndTheStream with an error that names both.
func TestFramesOfAnotherVersionEndTheStream(t *testing.T) {
	server := servePushes(t, newIngester(t, false), ServerConfig{}, "127.0.0.1:0")
	p := pushClient(t, ClientConfig{}).Peer(server.address)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for text, frame := range map[string]rpcframe.Frame{
		"unknown version 9, this release speaks 2": {9}, "cut or damaged": {pushVersion, 0, 200, 1},
	} {
		s, err := p.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, PushMethod)
		require.NoError(t, err)
		require.NoError(t, s.SendMsg(&frame))
		require.ErrorContains(t, s.RecvMsg(new(rpcframe.Frame)), text)
	}
}

// TestSectionsWhoseSenderHasGoneAreNotStored when their turn comes after the deadline.
func TestSectionsWhoseSenderHasGoneAreNotStored(t *testing.T) {
	bothWays(t, func(t *testing.T, s sender, gate *pushGate) {
		open := gate.close()
		defer open()
		at := testStartMillis()
		held := sendBatch(t.Context(), s, "a", labelled("m", 1, at))
		soon(t, "it is inside", func() bool { _, inside := gate.counts(); return inside == 1 })
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		late := sendBatch(ctx, s, "a", labelled("late", 1, at))
		<-ctx.Done()
		if _, local := s.(*Local); !local {
			_, err := late.wait(t)
			require.ErrorIs(t, err, errLate)
		}
		open()
		_, err := held.wait(t)
		require.NoError(t, err)
		_, err = late.wait(t)
		require.Equal(t, errkind.Unavailable, errkind.Of(err))
		_, err = sendBatch(t.Context(), s, "a", labelled("last", 1, at)).wait(t)
		require.NoError(t, err)
		require.Len(t, contents(t, ingesterOf(t, gate), "a"), 2)
	})
}
