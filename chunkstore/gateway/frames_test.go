package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/reader"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/rpcframe"
)

// script notes what sinks are told.
type script struct{ lines []string }

func (s *script) note(format string, args ...any) error {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
	return nil
}

func (s *script) found(l labels.Labels, b []int) error { return s.note("found %s %v", l, b) }
func (s *script) ended(b int, n uint64) error          { return s.note("ended %d %d", b, n) }
func (s *script) turn(b []int) error                   { return s.note("turn %v", b) }
func (s *script) run(p, first int) error               { return s.note("run %d %d", p, first) }
func (s *script) entryEnd(count, sum uint64) error     { return s.note("end %d %d", count, sum) }
func (s *script) chunk(m chunks.Meta, n int) error {
	return s.note("chunk %d %d %s %x %d", m.MinTime, m.MaxTime, m.Chunk.Encoding(), m.Chunk.Bytes(), n)
}

func TestARequestArrivesAsItWasSent(t *testing.T) {
	b := block(7)
	b.Labels, b.SidecarBytes, b.DirectoryBytes = map[string]string{"cluster": "eu"}, 123, 45
	matchers := []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchEqual, "a\xff", "b\xfe"), labels.MustNewMatcher(labels.MatchNotRegexp, "x", "y.*|z"),
	}
	r := newRequest([]manifest.Block{b}, math.MinInt64, math.MaxInt64, matchers)
	r.SelectHints = &storage.SelectHints{
		Start: math.MinInt64, End: 9, Limit: 3, Func: "rate", ShardCount: math.MaxUint64, ShardIndex: math.MaxUint64 - 1,
	}
	r.More, r.LabelName, r.LabelHints = 7, []byte("n\xff"), &storage.LabelHints{Limit: 3}
	frame, err := jsonFrame(r)
	require.NoError(t, err)
	got, gotMatchers, err := decodeRequest(frame)
	require.NoError(t, err)
	require.Equal(t, r, got)
	require.Equal(t, fmt.Sprint(matchers), fmt.Sprint(gotMatchers))
	require.Equal(t, matchers[0].Value, gotMatchers[0].Value)
	require.Nil(t, got.Blocks[0].Sources, "nobody reads them, and there may be hundreds")
	require.NotNil(t, b.Sources)
}

func TestWrongRequestsAreRefused(t *testing.T) {
	for want, change := range map[string]func(*request){
		"protocol version 2": func(r *request) { r.Version = 2 },
		"names no block":     func(r *request) { r.Blocks = nil },
		"twice":              func(r *request) { r.Blocks = append(r.Blocks, r.Blocks[0]) },
		"wants -1 series":    func(r *request) { r.More = -1 },
		"matcher type 9":     func(r *request) { r.Matchers = []duramenpb.Matcher{{Type: 9}} },
		"missing closing": func(r *request) {
			r.Matchers = []duramenpb.Matcher{{Type: labels.MatchRegexp, Name: []byte("a"), Value: []byte("(")}}
		},
	} {
		r := newRequest([]manifest.Block{block(1)}, 0, 1, nil)
		change(r)
		frame, err := jsonFrame(r)
		require.NoError(t, err)
		_, _, err = decodeRequest(frame)
		require.ErrorContains(t, err, want)
	}
	for _, frame := range []string{"", "\x10", "\x10{", "\x11{}", "\x10{\"blocks\":[{\"ulid\":\"x\"}]}"} {
		_, _, err := decodeRequest([]byte(frame))
		isKind(t, err, errkind.Invalid)
	}
}

func TestErrorsAreFrames(t *testing.T) {
	for _, want := range []error{
		errors.New("x"), errkind.New(errkind.Corrupt, "block\xff"),
		&errkind.Error{Kind: errkind.Limited, RetryAfter: 2 * time.Second, Err: fmt.Errorf("a %w", reader.ErrGone)},
	} {
		got, ok := decodeError(errorFrame(want)[1:])
		require.True(t, ok)
		require.EqualError(t, got, want.Error())
		require.Equal(t, errkind.Of(want), errkind.Of(got))
		require.Equal(t, errkind.RetryAfter(want), errkind.RetryAfter(got))
		require.Equal(t, errors.Is(want, reader.ErrGone), errors.Is(got, reader.ErrGone))
	}
	require.Equal(t, errkind.Internal, errkind.Named("a kind of the future"))
}

// seriesItems and chunkItems are random frames without their first byte, and what a sink is told by them.
func seriesItems(r *rand.Rand) (frame []byte, want []string) {
	var list blocksList
	var s script
	for range r.IntN(20) {
		blocks := make([]int, 1+r.IntN(3))
		for i := range blocks {
			blocks[i] = r.IntN(300)
		}
		switch r.IntN(3) {
		case 0:
			lset := labels.FromStrings("a", fmt.Sprint(r.IntN(5)), "b", "")
			frame = list.append(appendLabels(append(frame, itemFound), lset), blocks)
			_ = s.found(lset, blocks)
		case 1:
			frame = append(frame, itemEnd, byte(blocks[0]%100), 5)
			_ = s.ended(blocks[0]%100, 5)
		default:
			frame = list.append(append(frame, itemTurn), blocks)
			_ = s.turn(blocks)
		}
	}
	return frame, s.lines
}

func chunkItems(r *rand.Rand) (frame []byte, want []string) {
	var s script
	for range r.IntN(20) {
		switch r.IntN(3) {
		case 0:
			frame = append(frame, itemRun, 7, 9)
			_ = s.run(7, 9)
		case 1:
			mint := r.Int64() - r.Int64()
			m := chunk(mint, mint+r.Int64N(1000), r.IntN(100), byte(r.IntN(256)))
			frame = appendChunk(frame, m, m.Chunk.Bytes())
			_ = s.chunk(m, len(m.Chunk.Bytes()))
		default:
			frame = append(frame, itemEntryEnd, 3, 4)
			_ = s.entryEnd(3, 4)
		}
	}
	return frame, s.lines
}

func TestFramesArriveAsTheyWereSent(t *testing.T) {
	r := seeded(t)
	var b labels.ScratchBuilder
	for range 300 {
		var s script
		frame, want := seriesItems(r)
		require.NoError(t, decodeSeries(frame, 300, &b, &s))
		require.Equal(t, want, s.lines)
		s = script{}
		frame, want = chunkItems(r)
		require.NoError(t, decodeChunks(frame, &s))
		require.Equal(t, want, s.lines)
	}
	for _, want := range []command{
		{more: 5}, {generation: 3, credit: 100}, {read: true, generation: 1, position: 2, skip: 3, credit: 4}, {},
	} {
		got, err := decodeCommand(want.frame())
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	ids := []ulid.ULID{block(1).ULID, block(2).ULID}
	got, err := decodeOpened(openedFrame(ids)[1:])
	require.NoError(t, err)
	require.Equal(t, ids, got)
	_, err = decodeOpened([]byte{9})
	require.ErrorContains(t, err, "protocol version 9")
}

// TestABlockOutOfRangeIsDamage: a number that no block has must not reach a slice.
func TestABlockOutOfRangeIsDamage(t *testing.T) {
	var b labels.ScratchBuilder
	for _, frame := range [][]byte{{itemTurn, 1, 3}, {itemEnd, 3, 0}, {itemTurn, 4, 0, 1, 2, 0}, {itemTurn, 0}, {9}} {
		require.ErrorIs(t, decodeSeries(frame, 3, &b, &script{}), rpcframe.ErrCut)
	}
}

// FuzzFrames: no frame of either side makes a decoder panic or take memory that it does not have the bytes for.
func FuzzFrames(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5 {
		series, _ := seriesItems(r)
		chunks, _ := chunkItems(r)
		f.Add(series)
		f.Add(chunks)
	}
	request, err := json.Marshal(newRequest(blockList(2), 0, 1, []*labels.Matcher{nameMatcher()}))
	require.NoError(f, err)
	f.Add(append([]byte{frameOpen}, request...))
	f.Add(errorFrame(errBucketAway)[1:])
	f.Add(openedFrame(blockIDs(blockList(3)))[1:])
	f.Add(command{read: true, generation: 1, position: 2, skip: 3, credit: 4}.frame())
	f.Fuzz(func(t *testing.T, frame []byte) {
		var b labels.ScratchBuilder
		s := &script{}
		_ = decodeSeries(frame, 3, &b, s)
		_ = decodeChunks(frame, s)
		require.LessOrEqual(t, len(s.lines), 2*len(frame))
		_, _, _ = chunkFrameGeneration(frame)
		_, _ = decodeOpened(frame)
		_, _ = decodeError(frame)
		_, _ = decodeValues(nil, frame)
		if c, err := decodeCommand(frame); err == nil {
			again, err := decodeCommand(c.frame())
			require.NoError(t, err)
			if c.more > 0 || c.read || c.credit > 0 {
				require.Equal(t, c, again)
			}
		}
		if r, _, err := decodeRequest(frame); err == nil {
			require.NotEmpty(t, r.Blocks)
		}
	})
}
