package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/reader"
	"github.com/duramendb/duramen/internal/errkind"
)

// TestItAnswersAsTheSourceDoes: whatever the blocks, the spreading and the order of reading.
func TestItAnswersAsTheSourceDoes(t *testing.T) {
	r := seeded(t)
	for i := range 8 {
		blocks := blockList(1 + r.IntN(20))
		source := &memorySource{blocks: randomBlocks(r, len(blocks), r.IntN(120), 6)}
		var members []*testMember
		for m := range 1 + r.IntN(3) {
			members = append(members, startMember(t, fmt.Sprintf("m%d", m), source))
		}
		matcher := labels.MustNewMatcher(labels.MatchNotEqual, "__name__", "m1")
		if i%2 == 0 {
			matcher = labels.MustNewMatcher(labels.MatchEqual, "x", "\xff")
		}
		session := startClient(t, members...).Session("t", blocks, 0, 1<<40)
		sets, err := session.Select(t.Context(), nil, matcher)
		require.NoError(t, err)
		require.Len(t, sets, len(blocks))
		var got content
		switch i % 4 {
		case 0:
			got, err = readMerged(sets, true)
		case 1:
			got, err = readMerged(sets, false)
		case 2:
			got, err = readOneByOne(sets)
		default:
			got, err = readShuffled(r, sets)
		}
		require.NoError(t, err)
		sameContent(t, local(t, source, blocks, matcher), got)
		require.NoError(t, session.Close())
		for _, m := range members {
			m.stop()
		}
		_, _, _, open := source.counts()
		require.Zero(t, open, "a session stays open")
	}
}

func TestASessionWithoutBlocks(t *testing.T) {
	c := startClient(t)
	session := c.Session("t", nil, 0, 1)
	sets, err := session.Select(t.Context(), nil, nameMatcher())
	require.NoError(t, err)
	require.Empty(t, sets)
	names, err := session.LabelNames(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, names)
	require.NoError(t, session.Close())
}

// TestAMergeReadsWithoutSeeking: neither the engine's order nor that of a remote read costs more than the chunks once.
func TestAMergeReadsWithoutSeeking(t *testing.T) {
	for _, later := range []bool{true, false} {
		source := &memorySource{blocks: evenBlocks(10, 150, 5, 400)}
		for n, b := range blockList(10) { // the blocks do not all have the same series
			source.blocks[b.ULID] = source.blocks[b.ULID][n*n:]
		}
		c := startClient(t, startMember(t, "a", source))
		session := c.Session("t", blockList(10), 0, 1<<40)
		sets, err := session.Select(t.Context(), nil, nameMatcher())
		require.NoError(t, err)
		got, err := readMerged(sets, later)
		require.NoError(t, err)
		sameContent(t, local(t, source, blockList(10), nameMatcher()), got)
		require.NoError(t, session.Close())
		require.Zero(t, testutil.ToFloat64(c.metrics.seeks))
		var want int
		for _, block := range got {
			for _, s := range block {
				want += len(s.chunks)
			}
		}
		_, chunks, _, _ := source.counts()
		require.Equal(t, want, chunks, "each chunk is read once")
	}
}

// TestASelectThatNobodyReadsCostsAWindow: of the labels, and nothing of the chunks.
func TestASelectThatNobodyReadsCostsAWindow(t *testing.T) {
	const blocks = 4
	source := &memorySource{blocks: evenBlocks(blocks, 2*seriesWindow, 1, 10)}
	member := startMember(t, "a", source)
	member.server.patience = time.Millisecond
	c := startClient(t, member)
	session := c.Session("t", blockList(blocks), 0, 1<<40)
	sets, err := session.Select(t.Context(), nil, nameMatcher())
	require.NoError(t, err)
	eventually(t, "the window is filled", func() bool {
		series, _, _, _ := source.counts()
		return series >= seriesWindow
	})
	eventually(t, "it keeps no memory from others", func() bool {
		source.mu.Lock()
		defer source.mu.Unlock()
		return source.yields > 0
	})
	for range 100 { // the rest comes as it is asked for
		require.True(t, sets[0].Next())
	}
	series, chunks, _, _ := source.counts()
	require.LessOrEqual(t, series, seriesWindow+blocks)
	require.Zero(t, chunks)
	require.NoError(t, session.Close())
}

// TestASlowReaderHoldsAWindow: the server reads no further ahead than the client allows, and gives back what the source
// read ahead.
func TestASlowReaderHoldsAWindow(t *testing.T) {
	const size = 16 << 10
	source := &memorySource{blocks: evenBlocks(3, 100, 4, size)} // 19 MiB
	member := startMember(t, "a", source)
	member.server.patience = time.Millisecond
	c := startClient(t, member)
	session := c.Session("t", blockList(3), 0, 1<<40)
	sets, err := session.Select(t.Context(), nil, nameMatcher())
	require.NoError(t, err)
	for range 20 {
		for _, set := range sets {
			require.True(t, set.Next())
			s, err := readChunks(set.At())
			require.NoError(t, err)
			require.Len(t, s.chunks, 4)
		}
	}
	eventually(t, "the server has used up the credit and yields", func() bool {
		source.mu.Lock()
		defer source.mu.Unlock()
		return source.yields > 0 && source.bytes >= 20*3*4*size+chunkWindow/2
	})
	_, _, bytes, _ := source.counts()
	require.LessOrEqual(t, bytes, 20*3*4*size+chunkWindow+size)
	got, err := readOneByOne(sets) // what is left is all there
	require.NoError(t, err)
	for b := range got {
		require.Len(t, got[b], 80)
	}
	require.NoError(t, session.Close())
}

// TestSkippedSeriesDoNotHoldTheWindow: a reader that leaves out most series gets those that it asks for.
func TestSkippedSeriesDoNotHoldTheWindow(t *testing.T) {
	const size = 20 << 10
	source := &memorySource{blocks: evenBlocks(2, 400, 1, size)}
	c := startClient(t, startMember(t, "a", source))
	session := c.Session("t", blockList(2), 0, 1<<40)
	sets, err := session.Select(t.Context(), nil, nameMatcher())
	require.NoError(t, err)
	for i := range 400 {
		for _, set := range sets {
			require.True(t, set.Next())
			if i%3 == 2 {
				s, err := readChunks(set.At())
				require.NoError(t, err)
				require.Len(t, s.chunks, 1)
			}
		}
	}
	require.NoError(t, session.Close())
}

func TestErrorsKeepTheirKindAcrossTheNetwork(t *testing.T) {
	blocks := blockList(3)
	for name, want := range map[string]error{
		"gone": errkind.New(errkind.Unavailable, "block x: %w", reader.ErrGone),
		"over": errkind.New(errkind.Unprocessable, "limit max_series is 5, the query needs 7"),
		"late": &errkind.Error{Kind: errkind.Limited, RetryAfter: 3 * time.Second, Err: errors.New("no memory in time")},
		"bad":  errkind.New(errkind.Corrupt, "block y is damaged"),
		"ours": errInternal,
	} {
		for _, at := range []string{"select", "series", "chunk", "labels"} {
			t.Run(name+" at "+at, func(t *testing.T) {
				asked := atomic.Int32{}
				source := &memorySource{blocks: evenBlocks(3, 3, 3, 10), before: func(_ context.Context, what string) error {
					if what != at {
						return nil
					}
					asked.Add(1)
					return want
				}}
				c := startClient(t, startMember(t, "a", source), startMember(t, "b", source))
				session := c.Session("t", blocks, 0, 1<<40)
				defer session.Close()
				var err error
				if at == "labels" {
					_, err = session.LabelValues(t.Context(), "i", nil)
				} else {
					var sets []storage.ChunkSeriesSet
					if sets, err = session.Select(t.Context(), nil, nameMatcher()); err == nil {
						_, err = readMerged(sets, true)
					}
				}
				isKind(t, err, errkind.Of(want))
				require.ErrorContains(t, err, want.Error())
				require.Regexp(t, `store-gateway [ab] \(127\.0\.0\.1:\d+\)(:| does not find it in its bucket:) `, err.Error())
				require.Equal(t, errors.Is(want, reader.ErrGone), strings.Contains(err.Error(), "in its bucket"))
				require.Equal(t, errors.Is(want, reader.ErrGone), errors.Is(err, reader.ErrGone))
				require.Equal(t, errkind.RetryAfter(want), errkind.RetryAfter(err))
				require.LessOrEqual(t, asked.Load(), int32(2), "what another member would say, too, is not asked of it")
			})
		}
	}
}

// TestAMemberThatIsAway: its blocks are asked of the others, whatever is asked.
func TestAMemberThatIsAway(t *testing.T) {
	blocks := blockList(12)
	source := &memorySource{blocks: evenBlocks(12, 5, 2, 10)}
	a, b := startMember(t, "a", source), startMember(t, "b", source)
	c := startClient(t, a, b)
	whole := func() error {
		session := c.Session("t", blocks, 0, 1<<40)
		defer session.Close()
		sets, err := session.Select(t.Context(), nil, nameMatcher())
		if err != nil {
			return err
		}
		got, err := readMerged(sets, true)
		if err != nil {
			return err
		}
		sameContent(t, local(t, source, blocks, nameMatcher()), got)
		values, err := session.LabelValues(t.Context(), "i", nil)
		if err != nil {
			return err
		}
		require.Len(t, values, 5)
		return nil
	}
	require.NoError(t, whole())
	a.stop()
	require.NoError(t, whole())
	require.NotZero(t, testutil.ToFloat64(c.metrics.requests.WithLabelValues(outcomeFailed)))
	b.stop()
	err := whole()
	isKind(t, err, errkind.Unavailable)
	require.ErrorContains(t, err, a.Member.String())
	require.ErrorContains(t, err, b.Member.String())
	require.ErrorContains(t, err, "of tenant t: no store-gateway answered")
	require.NotErrorIs(t, err, reader.ErrGone)
	a.listen(t, a.Address)
	eventually(t, "the member is found again", func() bool { return whole() == nil })
}

// TestABucketThatIsAwayAtOneMember: each other member is asked once.
func TestABucketThatIsAwayAtOneMember(t *testing.T) {
	var asked atomic.Int32
	bad := &memorySource{blocks: evenBlocks(6, 3, 1, 10), before: func(context.Context, string) error {
		asked.Add(1)
		return errBucketAway
	}}
	good := &memorySource{blocks: bad.blocks}
	c := startClient(t, startMember(t, "a", bad), startMember(t, "b", good), startMember(t, "c", bad))
	session := c.Session("t", blockList(6), 0, 1<<40)
	defer session.Close()
	sets, err := session.Select(t.Context(), nil, nameMatcher())
	require.NoError(t, err)
	got, err := readMerged(sets, true)
	require.NoError(t, err)
	sameContent(t, local(t, good, blockList(6), nameMatcher()), got)

	c = startClient(t, startMember(t, "a", bad), startMember(t, "c", bad))
	alone := c.Session("t", blockList(1), 0, 1<<40)
	defer alone.Close()
	asked.Store(0)
	_, err = alone.Select(t.Context(), nil, nameMatcher())
	isKind(t, err, errkind.Unavailable)
	require.ErrorContains(t, err, "bucket is away")
	require.EqualValues(t, 2, asked.Load(), "each once")
}

func TestNobodyToAsk(t *testing.T) {
	session := startClient(t).Session("t", blockList(1), 0, 1)
	defer session.Close()
	_, err := session.Select(t.Context(), nil, nameMatcher())
	isKind(t, err, errkind.Unavailable)
	require.ErrorContains(t, err, "no store-gateway is known")
	_, err = session.LabelNames(t.Context(), nil)
	isKind(t, err, errkind.Unavailable)
}

// TestAMemberThatDiesInTheMiddle: the answer is the same, wherever it dies, or with nobody left an error.
func TestAMemberThatDiesInTheMiddle(t *testing.T) {
	r := seeded(t)
	for i := range 10 {
		blocks := blockList(1 + r.IntN(8))
		data := randomBlocks(r, len(blocks), 100, 6)
		healthy := &memorySource{blocks: data}
		var dying *testMember
		var left atomic.Int64
		left.Store(int64(r.IntN(600)))
		source := &memorySource{blocks: data, before: func(context.Context, string) error {
			if left.Add(-1) == 0 {
				go dying.grpc.Stop() // waits for this very call
			}
			return nil
		}}
		dying = startMember(t, "a", source)
		members := []*testMember{dying}
		alone := i%5 == 4
		if !alone {
			members = append(members, startMember(t, "b", healthy))
		}
		session := startClient(t, members...).Session("t", blocks, 0, 1<<40)
		sets, err := session.Select(t.Context(), nil, nameMatcher())
		var got content
		if err == nil {
			switch i % 3 {
			case 0:
				got, err = readMerged(sets, true)
			case 1:
				got, err = readMerged(sets, false)
			default:
				got, err = readShuffled(rand.New(rand.NewPCG(1, uint64(i))), sets)
			}
		}
		switch {
		case !alone:
			require.NoError(t, err)
			sameContent(t, local(t, healthy, blocks, nameMatcher()), got)
		case err != nil:
			isKind(t, err, errkind.Unavailable)
			require.ErrorContains(t, err, dying.Address)
		default:
			sameContent(t, local(t, healthy, blocks, nameMatcher()), got)
		}
		require.NoError(t, session.Close())
	}
}

// TestMembersThatDisagree: a replacement that shows other series is an error and no answer.
func TestMembersThatDisagree(t *testing.T) {
	blocks := blockList(1)
	data, other := evenBlocks(1, 50, 1, 10), evenBlocks(1, 50, 1, 10)
	id := blocks[0].ULID
	other[id] = other[id][1:]
	source := &memorySource{blocks: data, before: func(_ context.Context, what string) error {
		if what == "chunk" {
			return errBucketAway
		}
		return nil
	}}
	first := startMember(t, "a", source)
	second := startMember(t, "b", &memorySource{blocks: other})
	members := []Member{first.Member, second.Member}
	if preference(members, id)[0] == 1 {
		source.blocks, second.source.blocks = other, data
		source, second.source = second.source, source
		second.source.before, source.before = source.before, nil
	}
	session := startClient(t, first, second).Session("t", blocks, 0, 1<<40)
	defer session.Close()
	sets, err := session.Select(t.Context(), nil, nameMatcher())
	require.NoError(t, err)
	_, err = readMerged(sets, true)
	if err != nil {
		require.ErrorContains(t, err, "two store-gateways read different series")
		return
	}
	t.Fatal("the answers of two different blocks were put together")
}

func TestLabels(t *testing.T) {
	r := seeded(t)
	for range 10 {
		blocks := blockList(1 + r.IntN(9))
		source := &memorySource{blocks: randomBlocks(r, len(blocks), 300, 1)}
		session := startClient(t, startMember(t, "a", source), startMember(t, "b", source)).Session("t", blocks, 0, 1<<40)
		plain := source.Session("t", blocks, 0, 1<<40)
		for _, limit := range []int{0, 1, 7, 1000} {
			hints := &storage.LabelHints{Limit: limit}
			matcher := labels.MustNewMatcher(labels.MatchEqual, "__name__", "m2")
			want, err := plain.LabelValues(t.Context(), "i", hints, matcher)
			require.NoError(t, err)
			got, err := session.LabelValues(t.Context(), "i", hints, matcher)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(want), fmt.Sprint(got))
			want, err = plain.LabelNames(t.Context(), hints)
			require.NoError(t, err)
			got, err = session.LabelNames(t.Context(), hints)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(want), fmt.Sprint(got))
		}
		require.NoError(t, session.Close())
		require.NoError(t, plain.Close())
	}
}

// TestEndingReachesTheOtherSide: who closes a session or is out of time does not leave the server at work.
func TestEndingReachesTheOtherSide(t *testing.T) {
	for _, at := range []string{"select", "series", "chunk", "labels"} {
		for _, how := range []string{"cancel", "deadline", "close"} {
			if how == "close" && (at == "select" || at == "labels") {
				continue // a session is for one goroutine
			}
			t.Run(at+" "+how, func(t *testing.T) {
				reached := make(chan struct{}, 1)
				source := &memorySource{blocks: evenBlocks(2, 3, 3, 10), before: func(ctx context.Context, what string) error {
					if what != at {
						return nil
					}
					select {
					case reached <- struct{}{}:
					default:
					}
					<-ctx.Done()
					return ctx.Err()
				}}
				member := startMember(t, "a", source)
				ctx, cancel := context.WithCancel(t.Context())
				if how == "deadline" {
					ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
				}
				defer cancel()
				session := startClient(t, member).Session("t", blockList(2), 0, 1<<40)
				if how == "cancel" {
					go func() {
						<-reached
						cancel()
					}()
				}
				var err error
				if at == "labels" {
					_, err = session.LabelNames(ctx, nil)
				} else {
					var sets []storage.ChunkSeriesSet
					if sets, err = session.Select(ctx, nil, nameMatcher()); err == nil && how != "close" {
						_, err = readMerged(sets, true)
					}
				}
				if how != "close" {
					require.Error(t, err)
					require.Contains(t, []errkind.Kind{errkind.Canceled, errkind.Unavailable}, errkind.Of(err), "%v", err)
				}
				require.NoError(t, session.Close())
				eventually(t, "the server's session is closed", func() bool {
					_, _, _, open := source.counts()
					return open == 0
				})
			})
		}
	}
}

// TestAChunkLargerThanTheWindow, after a seek, which begins with a small one.
func TestAChunkLargerThanTheWindow(t *testing.T) {
	source := &memorySource{blocks: evenBlocks(1, 5, 3, 10*smallWindow)}
	session := startClient(t, startMember(t, "a", source)).Session("t", blockList(1), 0, 1<<40)
	defer session.Close()
	sets, err := session.Select(t.Context(), nil, nameMatcher())
	require.NoError(t, err)
	var all []storage.ChunkSeries
	for sets[0].Next() {
		all = append(all, sets[0].At())
	}
	for _, i := range []int{4, 0, 3, 1, 2, 4} {
		s, err := readChunks(all[i])
		require.NoError(t, err)
		require.Len(t, s.chunks, 3)
		require.Equal(t, source.blocks[blockList(1)[0].ULID][i].chunks[2].Chunk.Bytes(), s.chunks[2].Chunk.Bytes())
	}
}

// TestTheReadersSessionsCanYield: else a slow querier would keep memory from others.
func TestTheReadersSessionsCanYield(t *testing.T) {
	local, err := reader.NewLocal(reader.Config{}, bucket.NewInMemory(), nil, nil, nil, nil, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	session := local.Session("t", nil, 0, 1)
	require.Implements(t, (*Yielder)(nil), session)
	require.NoError(t, session.Close())
	require.NoError(t, local.Close())
}
