package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/reader"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/peerconn"
	"github.com/duramendb/duramen/internal/rpcframe"
	"github.com/duramendb/duramen/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memorySource is a reader.Source of blocks in memory, which counts what is taken of it and does what hooks say.
type memorySource struct {
	blocks map[ulid.ULID][]memorySeries

	// before is called, when it is set, before each series and each chunk is given.
	before func(ctx context.Context, what string) error

	mu       sync.Mutex
	tenants  map[string]int
	sessions int // open ones
	series   int
	chunks   int
	bytes    int
	yields   int
}

type memorySeries struct {
	lset   labels.Labels
	chunks []chunks.Meta
}

// Session implements reader.Source.
func (m *memorySource) Session(id string, blocks []manifest.Block, mint, maxt int64) reader.Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sessions++
	if m.tenants == nil {
		m.tenants = map[string]int{}
	}
	m.tenants[id]++
	return &memorySession{m: m, tenant: id, blocks: blocks, mint: mint, maxt: maxt}
}

func (m *memorySource) count(series, chunks, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.series += series
	m.chunks += chunks
	m.bytes += bytes
}

// counts are the series, chunks and bytes given so far, and the sessions that are open.
func (m *memorySource) counts() (series, chunks, bytes, sessions int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.series, m.chunks, m.bytes, m.sessions
}

func (m *memorySource) hook(ctx context.Context, what string) error {
	if m.before != nil {
		if err := m.before(ctx, what); err != nil {
			return err
		}
	}
	return ctx.Err()
}

type memorySession struct {
	m          *memorySource
	tenant     string
	blocks     []manifest.Block
	mint, maxt int64
}

func (s *memorySession) Close() error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.sessions--
	return nil
}

func (s *memorySession) Yield() {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.yields++
}

func (s *memorySession) matching(block ulid.ULID, matchers []*labels.Matcher) []memorySeries {
	var list []memorySeries
	for _, series := range s.m.blocks[block] {
		if !matches(series.lset, matchers) {
			continue
		}
		var kept []chunks.Meta
		for _, c := range series.chunks {
			if c.OverlapsClosedInterval(s.mint, s.maxt) {
				kept = append(kept, c)
			}
		}
		list = append(list, memorySeries{series.lset, kept})
	}
	return list
}

func matches(lset labels.Labels, matchers []*labels.Matcher) bool {
	for _, m := range matchers {
		if !m.Matches(lset.Get(m.Name)) {
			return false
		}
	}
	return true
}

func (s *memorySession) Select(
	ctx context.Context, _ *storage.SelectHints, matchers ...*labels.Matcher,
) ([]storage.ChunkSeriesSet, error) {
	if err := s.m.hook(ctx, "select"); err != nil {
		return nil, err
	}
	sets := make([]storage.ChunkSeriesSet, len(s.blocks))
	for i, b := range s.blocks {
		sets[i] = &memorySet{s: s, ctx: ctx, series: s.matching(b.ULID, matchers), at: -1}
	}
	return sets, nil
}

func (s *memorySession) LabelValues(
	ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, error) {
	return s.labels(ctx, hints, matchers, func(lset labels.Labels) []string {
		if v := lset.Get(name); v != "" {
			return []string{v}
		}
		return nil
	})
}

func (s *memorySession) LabelNames(
	ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, error) {
	return s.labels(ctx, hints, matchers, func(lset labels.Labels) (names []string) {
		lset.Range(func(l labels.Label) { names = append(names, l.Name) })
		return names
	})
}

func (s *memorySession) labels(
	ctx context.Context, hints *storage.LabelHints, matchers []*labels.Matcher, of func(labels.Labels) []string,
) ([]string, error) {
	if err := s.m.hook(ctx, "labels"); err != nil {
		return nil, err
	}
	var all []string
	for _, b := range s.blocks {
		for _, series := range s.matching(b.ULID, matchers) {
			all = append(all, of(series.lset)...)
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if hints != nil && hints.Limit > 0 {
		all = all[:min(len(all), hints.Limit)]
	}
	return all, nil
}

type memorySet struct {
	s      *memorySession
	ctx    context.Context
	series []memorySeries
	at     int
	err    error
}

func (m *memorySet) Next() bool {
	if m.err != nil || m.at+1 >= len(m.series) {
		return false
	}
	if m.err = m.s.m.hook(m.ctx, "series"); m.err != nil {
		return false
	}
	m.s.m.count(1, 0, 0)
	m.at++
	return true
}

func (m *memorySet) At() storage.ChunkSeries {
	return &memoryChunkSeries{m.series[m.at], m.s, m.ctx}
}
func (m *memorySet) Err() error                      { return m.err }
func (*memorySet) Warnings() annotations.Annotations { return nil }

type memoryChunkSeries struct {
	memorySeries
	s   *memorySession
	ctx context.Context
}

func (c *memoryChunkSeries) Labels() labels.Labels { return c.lset }
func (c *memoryChunkSeries) Iterator(chunks.Iterator) chunks.Iterator {
	return &memoryIterator{c: c, at: -1}
}

type memoryIterator struct {
	c   *memoryChunkSeries
	at  int
	err error
}

func (m *memoryIterator) Next() bool {
	if m.err != nil || m.at+1 >= len(m.c.chunks) {
		return false
	}
	if m.err = m.c.s.m.hook(m.c.ctx, "chunk"); m.err != nil {
		return false
	}
	m.at++
	m.c.s.m.count(0, 1, len(m.c.chunks[m.at].Chunk.Bytes()))
	return true
}
func (m *memoryIterator) At() chunks.Meta { return m.c.chunks[m.at] }
func (m *memoryIterator) Err() error      { return m.err }

// block and its id from a number.
func block(n int) manifest.Block {
	var id ulid.ULID
	id[15], id[14] = byte(n), byte(n>>8)
	return manifest.Block{ULID: id, MinTime: int64(n) * 1000, MaxTime: int64(n+1) * 1000, Sources: []ulid.ULID{id}}
}

func blockList(n int) []manifest.Block {
	list := make([]manifest.Block, n)
	for i := range list {
		list[i] = block(i)
	}
	return list
}

// chunk is one of about size bytes, in which every byte depends on seed.
func chunk(mint, maxt int64, size int, seed byte) chunks.Meta {
	data := make([]byte, max(2, size))
	for i := range data {
		data[i] = seed + byte(i)
	}
	c, err := chunkenc.FromData(chunkenc.EncXOR, data)
	if err != nil {
		panic(err)
	}
	return chunks.Meta{MinTime: mint, MaxTime: maxt, Chunk: c}
}

// randomBlocks fills blocks with random subsets of some series.
func randomBlocks(r *rand.Rand, blocks, series, most int) map[ulid.ULID][]memorySeries {
	all := map[ulid.ULID][]memorySeries{}
	for n := range blocks {
		b := block(n)
		share := []float64{0, 0.1, 0.5, 0.95, 1}[r.IntN(5)]
		var list []memorySeries
		for i := range series {
			if r.Float64() >= share {
				continue
			}
			s := memorySeries{lset: labels.FromStrings("__name__", fmt.Sprintf("m%d", i%3), "i", fmt.Sprintf("%05d", i), "x", "\xff")}
			for c := range r.IntN(most) {
				mint := b.MinTime + int64(c)*10
				s.chunks = append(s.chunks, chunk(mint, mint+9, r.IntN(300), byte(r.IntN(256))))
			}
			list = append(list, s)
		}
		slices.SortFunc(list, func(x, y memorySeries) int { return labels.Compare(x.lset, y.lset) })
		all[b.ULID] = list
	}
	return all
}

// evenBlocks fills blocks with the same series, of chunks chunks of size bytes each.
func evenBlocks(blocks, series, chunksEach, size int) map[ulid.ULID][]memorySeries {
	all := map[ulid.ULID][]memorySeries{}
	for n := range blocks {
		b := block(n)
		for i := range series {
			s := memorySeries{lset: labels.FromStrings("__name__", "m", "i", fmt.Sprintf("%07d", i))}
			for c := range chunksEach {
				mint := b.MinTime + int64(c)*10
				s.chunks = append(s.chunks, chunk(mint, mint+9, size, byte(i+c)))
			}
			all[b.ULID] = append(all[b.ULID], s)
		}
	}
	return all
}

// testMember is a server on a port of loopback.
type testMember struct {
	Member
	source *memorySource
	server *Server
	grpc   *grpc.Server
	served sync.WaitGroup
}

func startMember(t *testing.T, id string, source *memorySource) *testMember {
	t.Helper()
	m := &testMember{Member: Member{ID: id}, source: source, server: NewServer(source, time.Now, slog.New(slog.DiscardHandler), nil)}
	m.listen(t, "127.0.0.1:0")
	t.Cleanup(m.stop)
	return m
}

func (m *testMember) listen(t *testing.T, address string) {
	l, err := net.Listen("tcp", address)
	require.NoError(t, err)
	m.Address = l.Addr().String()
	m.grpc = grpc.NewServer(
		grpc.ForceServerCodecV2(rpcframe.Codec{}), grpc.StreamInterceptor(tenant.StreamInterceptor), grpc.WaitForHandlers(true),
	)
	m.server.Register(m.grpc)
	served := m.grpc
	m.served.Go(func() { _ = served.Serve(l) })
}

func (m *testMember) stop() {
	m.grpc.Stop()
	m.served.Wait()
	m.server.Wait()
}

type memberList []Member

func (l memberList) StoreGateways() []Member { return l }

func startClient(t *testing.T, members ...*testMember) *Client {
	t.Helper()
	var list memberList
	for _, m := range members {
		list = append(list, m.Member)
	}
	return newClient(t, list)
}

func newClient(t *testing.T, members Members) *Client {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	conns, err := peerconn.New(peerconn.Config{SilenceTimeout: 3 * time.Second}, log, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conns.Close()) })
	return NewClient(members, conns, log, nil)
}

// content is what a Select gives: by block, the series with their chunks.
type content [][]memorySeries

func sameContent(t *testing.T, want, got content) {
	t.Helper()
	require.Len(t, got, len(want))
	for b := range want {
		require.Len(t, got[b], len(want[b]), "block %d", b)
		for i, w := range want[b] {
			g := got[b][i]
			require.True(t, labels.Equal(w.lset, g.lset), "block %d: %s is not %s", b, g.lset, w.lset)
			require.Len(t, g.chunks, len(w.chunks), "block %d series %s", b, w.lset)
			for c := range w.chunks {
				require.Equal(t, w.chunks[c].MinTime, g.chunks[c].MinTime)
				require.Equal(t, w.chunks[c].MaxTime, g.chunks[c].MaxTime)
				require.Equal(t, w.chunks[c].Chunk.Encoding(), g.chunks[c].Chunk.Encoding())
				require.Equal(t, w.chunks[c].Chunk.Bytes(), g.chunks[c].Chunk.Bytes())
			}
		}
	}
}

// readOneByOne reads one set after the other, each series with its chunks at once.
func readOneByOne(sets []storage.ChunkSeriesSet) (content, error) {
	all := make(content, len(sets))
	for b, set := range sets {
		for set.Next() {
			s, err := readChunks(set.At())
			if err != nil {
				return nil, err
			}
			all[b] = append(all[b], s)
		}
		if err := set.Err(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func readChunks(s storage.ChunkSeries) (memorySeries, error) {
	m := memorySeries{lset: s.Labels()}
	it := s.Iterator(nil)
	for it.Next() {
		m.chunks = append(m.chunks, it.At())
	}
	return m, it.Err()
}

// readMerged reads as a merge does: all sets abreast, and the chunks of each group of equal series either at once or, as
// the engine does it, after all labels are there.
func readMerged(sets []storage.ChunkSeriesSet, chunksLater bool) (content, error) {
	all := make(content, len(sets))
	var later []func() error
	has := make([]bool, len(sets))
	advance := func(b int) error {
		has[b] = sets[b].Next()
		return sets[b].Err()
	}
	for b := range sets {
		if err := advance(b); err != nil {
			return nil, err
		}
	}
	for {
		var least labels.Labels
		var group []int
		for b := range sets {
			if !has[b] {
				continue
			}
			c := -1
			if len(group) > 0 {
				c = labels.Compare(sets[b].At().Labels(), least)
			}
			switch {
			case c < 0:
				least, group = sets[b].At().Labels(), []int{b}
			case c == 0:
				group = append(group, b)
			}
		}
		if len(group) == 0 {
			break
		}
		for _, b := range group {
			s, n := sets[b].At(), len(all[b])
			all[b] = append(all[b], memorySeries{})
			read := func() (err error) {
				all[b][n], err = readChunks(s)
				return err
			}
			if chunksLater {
				later = append(later, read)
			} else if err := read(); err != nil {
				return nil, err
			}
		}
		for _, b := range group {
			if err := advance(b); err != nil {
				return nil, err
			}
		}
	}
	for _, read := range later {
		if err := read(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// readShuffled takes all labels, then the chunks in any order, some of them twice or in part.
func readShuffled(r *rand.Rand, sets []storage.ChunkSeriesSet) (content, error) {
	all := make(content, len(sets))
	type place struct {
		s    storage.ChunkSeries
		b, n int
	}
	var places []place
	for b, set := range sets {
		for set.Next() {
			all[b] = append(all[b], memorySeries{})
			places = append(places, place{set.At(), b, len(all[b]) - 1})
		}
		if err := set.Err(); err != nil {
			return nil, err
		}
	}
	r.Shuffle(len(places), func(i, j int) { places[i], places[j] = places[j], places[i] })
	for _, p := range places {
		if r.IntN(4) == 0 {
			it := p.s.Iterator(nil)
			for range r.IntN(3) {
				it.Next()
			}
		}
		var err error
		if all[p.b][p.n], err = readChunks(p.s); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func local(t *testing.T, source *memorySource, blocks []manifest.Block, matchers ...*labels.Matcher) content {
	t.Helper()
	plain := &memorySource{blocks: source.blocks}
	sets, err := plain.Session("t", blocks, 0, 1<<40).Select(t.Context(), nil, matchers...)
	require.NoError(t, err)
	c, err := readOneByOne(sets)
	require.NoError(t, err)
	return c
}

func nameMatcher() *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")
}

func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 20*time.Second, time.Millisecond, what)
}

var errBucketAway = errkind.New(errkind.Unavailable, "bucket is away")

func isKind(t *testing.T, err error, want errkind.Kind) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, want, errkind.Of(err), "%v", err)
}

var errInternal = errors.New("something else")
