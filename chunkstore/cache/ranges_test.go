package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

// store is a bucket with objects of seeded bytes that notes the ranges it is asked for and can be told to misbehave.
type store struct {
	*bucket.InMemory

	mu     sync.Mutex
	ranges []Span
	before func(ctx context.Context) error                // of each GetRange, when set
	body   func(off int64, r io.ReadCloser) io.ReadCloser // wraps bodies, when set
}

func newStore() *store { return &store{InMemory: bucket.NewInMemory()} }

// put makes an object of n bytes.
func (s *store) put(t testing.TB, key string, n int) (Object, []byte) {
	t.Helper()
	obj := Object{key, int64(n)}
	data := content(obj, 0, int64(n))
	require.NoError(t, s.Put(t.Context(), key, bytes.NewReader(data), int64(n)))
	return obj, data
}

func (s *store) GetRange(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	s.mu.Lock()
	s.ranges = append(s.ranges, Span{off, length})
	s.mu.Unlock()
	if s.before != nil {
		if err := s.before(ctx); err != nil {
			return nil, err
		}
	}
	r, err := s.InMemory.GetRange(ctx, key, off, length)
	if err == nil && s.body != nil {
		r = s.body(off, r)
	}
	return r, err
}

// asked returns the ranges since the last call.
func (s *store) asked() []Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.ranges
	s.ranges = nil
	return out
}

func newRanges(s *store, d *Disk) *Ranges { return NewRanges(s, d, slog.New(slog.DiscardHandler), nil) }

// mustRead reads spans and compares them with the object's bytes.
func mustRead(t testing.TB, r *Ranges, obj Object, data []byte, spans ...Span) {
	t.Helper()
	got, err := r.Read(t.Context(), obj, spans)
	require.NoError(t, err)
	require.Len(t, got, len(spans))
	for i, s := range spans {
		if !bytes.Equal(data[s.Offset:s.end()], got[i]) {
			t.Fatalf("span %d, offset %d, length %d: other bytes", i, s.Offset, s.Length)
		}
	}
}

func TestRangesJoinAndCut(t *testing.T) {
	s := newStore()
	obj, data := s.put(t, "tenant/block/chunks/000001", 20<<20)
	r := newRanges(s, nil)
	for _, c := range []struct {
		name  string
		spans []Span
		want  []Span
	}{
		{"nothing", nil, nil},
		{"empty span", []Span{{5, 0}}, nil},
		{"one", []Span{{5, 10}}, []Span{{5, 10}}},
		{"the end", []Span{{20<<20 - 1, 1}}, []Span{{20<<20 - 1, 1}}},
		{"any order, twice, overlapping", []Span{{100, 10}, {0, 50}, {0, 50}, {40, 20}}, []Span{{0, 110}}},
		{"gap just small enough", []Span{{0, 10}, {10 + maxGap, 10}}, []Span{{0, maxGap + 20}}},
		{"gap too large", []Span{{0, 10}, {11 + maxGap, 10}}, []Span{{0, 10}, {11 + maxGap, 10}}},
		{"long span", []Span{{1, 20<<20 - 1}}, []Span{{1, 8 << 20}, {1 + 8<<20, 8 << 20}, {1 + 16<<20, 4<<20 - 1}}},
		{
			"long row of spans",
			[]Span{{0, 5 << 20}, {5 << 20, 5 << 20}, {10 << 20, 5 << 20}},
			[]Span{{0, 8 << 20}, {8 << 20, 7 << 20}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			mustRead(t, r, obj, data, c.spans...)
			require.ElementsMatch(t, c.want, s.asked())
		})
	}
}

func TestRangesOfRandomSpans(t *testing.T) {
	s := newStore()
	obj, data := s.put(t, "o", 3<<20)
	r := newRanges(s, nil)
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(3, seed))
		spans := make([]Span, rnd.IntN(40))
		wanted := int64(0)
		for i := range spans {
			spans[i].Offset = rnd.Int64N(obj.Size)
			spans[i].Length = rnd.Int64N(min(obj.Size-spans[i].Offset, 1<<rnd.IntN(20)) + 1)
			wanted += spans[i].Length
		}
		mustRead(t, r, obj, data, spans...)
		held := int64(0)
		for _, g := range regions(spans) {
			held += int64(len(g.data))
		}
		require.LessOrEqual(t, held, wanted+wanted/smallGap, "seed %d: memory for what nobody asked for", seed)
	}
}

func TestRangesRefuseWhatIsNotInTheObject(t *testing.T) {
	s := newStore()
	obj, _ := s.put(t, "o", 100)
	r := newRanges(s, nil)
	for _, span := range []Span{{-1, 2}, {0, -1}, {0, 101}, {101, 0}, {50, 51}, {1 << 62, 1 << 62}, {1, 1<<63 - 1}} {
		_, err := r.Read(t.Context(), obj, []Span{{0, 1}, span})
		require.ErrorIs(t, err, ErrSpan, "%v", span)
	}
	require.Empty(t, s.asked())
}

func TestRangesNeverReturnShort(t *testing.T) {
	s := newStore()
	obj, _ := s.put(t, "some/key", 1000)
	r := newRanges(s, nil)

	obj.Size = 2000 // the object is shorter than its size says
	for _, spans := range [][]Span{{{900, 200}}, {{1500, 10}}, {{0, 10}, {1990, 10}}} {
		_, err := r.Read(t.Context(), obj, spans)
		require.ErrorIs(t, err, ErrShort)
		require.ErrorContains(t, err, "read some/key, offset")
	}
	obj.Size = 1000
	s.body = func(_ int64, b io.ReadCloser) io.ReadCloser {
		return struct {
			io.Reader
			io.Closer
		}{io.LimitReader(b, 99), b}
	}
	_, err := r.Read(t.Context(), obj, []Span{{0, 100}})
	require.ErrorIs(t, err, ErrShort)
	s.body = func(_ int64, b io.ReadCloser) io.ReadCloser {
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(b, bytes.NewReader([]byte{1})), b}
	}
	_, err = r.Read(t.Context(), obj, []Span{{0, 100}})
	require.ErrorIs(t, err, ErrShort, "more than asked for")

	_, err = r.Read(t.Context(), Object{"other/key", 10}, []Span{{0, 1}})
	require.ErrorIs(t, err, bucket.ErrNotFound)
	require.Empty(t, r.flights)
}

func TestRangesFailAsTheBucketDoes(t *testing.T) {
	s := newStore()
	obj, _ := s.put(t, "o", 9<<20)
	r := newRanges(s, nil)
	down := errors.New("down")
	s.before = func(context.Context) error { return down }
	_, err := r.Read(t.Context(), obj, []Span{{0, 9 << 20}})
	require.ErrorIs(t, err, down)

	ctx, cancel := context.WithCancel(t.Context())
	s.before = func(context.Context) error { cancel(); return nil }
	_, err = r.Read(ctx, obj, []Span{{0, 100}})
	require.ErrorIs(t, err, context.Canceled)
}

func TestRangesReadABrokenBodyOnceMore(t *testing.T) {
	s := newStore()
	obj, data := s.put(t, "o", 1000)
	r := newRanges(s, nil)
	reset := errors.New("connection reset")
	bad := 1
	s.body = func(_ int64, b io.ReadCloser) io.ReadCloser {
		if bad--; bad < 0 {
			return b
		}
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(b, 50), iotest.ErrReader(reset)), b}
	}
	mustRead(t, r, obj, data, Span{0, 100})
	require.Len(t, s.asked(), 2)
	bad = 2
	_, err := r.Read(t.Context(), obj, []Span{{0, 100}})
	require.ErrorIs(t, err, reset)
	require.ErrorContains(t, err, "read o, offset 0, length 100")
	require.Len(t, s.asked(), 2)

	ctx, cancel := context.WithCancel(t.Context())
	bad = 1
	s.before = func(context.Context) error { cancel(); return nil }
	_, err = r.Read(ctx, obj, []Span{{0, 100}})
	require.Error(t, err)
	require.Len(t, s.asked(), 1, "nobody waits for it any more")
}

func TestRangesShareRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		obj, data := s.put(t, "o", 1000)
		r := newRanges(s, nil)
		begin := make(chan struct{})
		s.before = func(ctx context.Context) error {
			select {
			case <-begin:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		// The first goes away while the others wait for its request; one of those makes it then.
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() { _, err := r.Read(ctx, obj, []Span{{0, 100}, {110, 50}}); first <- err }()
		synctest.Wait()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { mustRead(t, r, obj, data, Span{0, 100}, Span{110, 50}) })
		}
		// Another one has the same range and other parts.
		wg.Go(func() { mustRead(t, r, obj, data, Span{0, 1}, Span{150, 10}) })
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-first, context.Canceled)
		synctest.Wait()
		close(begin)
		wg.Wait()
		require.Len(t, s.asked(), 3)
		require.Equal(t, 19.0, testutil.ToFloat64(r.metrics.shared))
		require.Empty(t, r.flights)
	})
}

func TestRangesAreReadAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		obj, data := s.put(t, "o", 8<<20)
		r := newRanges(s, nil)
		begin := make(chan struct{})
		s.before = func(context.Context) error { <-begin; return nil }
		var spans []Span
		for i := range int64(8) {
			spans = append(spans, Span{i << 20, 1000})
		}
		var wg sync.WaitGroup
		wg.Go(func() { mustRead(t, r, obj, data, spans...) })
		synctest.Wait()
		require.Len(t, s.asked(), 8, "no request waits for the answer to another")
		close(begin)
		wg.Wait()
	})
}

func TestRangesCount(t *testing.T) {
	s := newStore()
	obj, data := s.put(t, "o", 10_000)
	r := newRanges(s, nil)
	mustRead(t, r, obj, data, Span{0, 100}, Span{200, 100})
	_, err := r.Refetch(t.Context(), obj, []Span{{0, 100}})
	require.NoError(t, err)
	for want, c := range map[string]float64{
		"2 reads":     testutil.ToFloat64(r.metrics.reads),
		"2 requests":  testutil.ToFloat64(r.metrics.requests),
		"300 asked":   testutil.ToFloat64(r.metrics.asked),
		"400 fetched": testutil.ToFloat64(r.metrics.fetched),
		"1 refetches": testutil.ToFloat64(r.metrics.refetches),
	} {
		var n float64
		_, err := fmt.Sscan(want, &n)
		require.NoError(t, err)
		require.Equal(t, n, c, want)
	}
}
