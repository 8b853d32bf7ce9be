package fanout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/querier"
	"github.com/duramendb/duramen/ring"
	"github.com/duramendb/duramen/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tenantID = "t1"

var nopLog = slog.New(slog.DiscardHandler)

// key is a float sample of the series {i="…"}, without its value.
type key struct {
	series int
	t      int64
}

type samples map[key]float64

// point is a chunks.Sample.
type point struct {
	key

	v float64
}

func (p point) T() int64                      { return p.t }
func (p point) ST() int64                     { return 0 }
func (p point) F() float64                    { return p.v }
func (p point) H() *histogram.Histogram       { return nil }
func (p point) FH() *histogram.FloatHistogram { return nil }
func (p point) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (p point) Copy() chunks.Sample           { return p }

// series returns samples as series in the order of labels.
func (s samples) series() []storage.Series {
	bySeries := map[int][]chunks.Sample{}
	for k, v := range s {
		bySeries[k.series] = append(bySeries[k.series], point{k, v})
	}
	var out []storage.Series
	for i, list := range bySeries {
		slices.SortFunc(list, func(a, b chunks.Sample) int { return int(a.T() - b.T()) })
		out = append(out, storage.NewListSeries(labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)), list))
	}
	slices.SortFunc(out, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return out
}

func (s samples) within(mint, maxt int64) samples {
	out := samples{}
	for k, v := range s {
		if mint <= k.t && k.t <= maxt {
			out[k] = v
		}
	}
	return out
}

// trouble is what a member does to calls.
type trouble int

const (
	fine trouble = iota
	slow
	refuses  // connection refused
	hangs    // nothing comes, for a Select after a while of silence it is away
	breaks   // Select ends in the middle
	stalls   // Select hangs in the middle, and is away after a while of silence
	corrupt  // a block of this tenant cannot be read
	crowded  // it answers as many reads as it may
	deletes  // between plan and select it deletes what is listed
	troubles // how many there are
)

// node is an ingester of a world.
type node struct {
	w    *world
	m    ring.Member
	data samples
	// listed is the manifest version that lists a sample, of those that are listed.
	listed map[key]uint64
	held   duramenpb.Held
	is     trouble
	gone   bool // for good
	calls  int
	delay  func() time.Duration
}

// world is a cluster in memory, its bucket, and what a naive reader would say.
type world struct {
	t     testing.TB
	mu    sync.Mutex // calls that nobody waits for any more go on while a test changes the world
	r     *rand.Rand
	cfg   ring.Config
	nodes []*node
	seen  *ring.Ring // by the querier
	// acked must be in an answer, unsure may be.
	acked, unsure samples
	blocks        map[ulid.ULID]samples
	newest        *manifest.Manifest
	known         *manifest.Manifest
	bucketAway    bool
	fanout        *Fanout
	querier       *querier.Querier
}

func newWorld(t testing.TB, seed uint64, rf, zones, each int) *world {
	t.Helper()
	w := &world{
		t: t, r: rand.New(rand.NewPCG(seed, 1)), cfg: ring.Config{ReplicationFactor: rf}, acked: samples{}, unsure: samples{},
		blocks: map[ulid.ULID]samples{}, newest: &manifest.Manifest{}, known: &manifest.Manifest{},
	}
	for z := range zones {
		for o := range each {
			w.nodes = append(w.nodes, &node{
				w: w, data: samples{}, listed: map[key]uint64{}, held: duramenpb.Held{Floor: math.MinInt64},
				delay: func() time.Duration { return time.Millisecond },
				m: ring.Member{
					ID: fmt.Sprintf("%c%d", 'a'+z, o), Zone: fmt.Sprintf("zone-%c", 'a'+z), Ordinal: o, State: ring.Active,
					Roles: []ring.Role{ring.RoleIngester}, Epoch: 1, Address: fmt.Sprintf("%c%d:1", 'a'+z, o),
				},
			})
		}
	}
	w.gossip()
	var err error
	w.fanout, err = New(Config{QuorumWait: 2 * time.Second}, w, w, "zone-a", time.Now, nopLog, nil)
	require.NoError(t, err)
	w.querier, err = querier.New(querier.Config{
		Timeout: time.Minute, MaxSamples: 50_000_000, LookbackDelta: 5 * time.Minute, MaxConcurrent: 4,
		RemoteReadSampleLimit: 50_000_000, RemoteReadConcurrentLimit: 10, RemoteReadMaxBytesInFrame: 40 << 20,
	}, w.fanout, w.fanout, w, w, tenant.StaticLimits(tenant.Values{}), time.Now, nopLog, nil)
	require.NoError(t, err)
	return w
}

// gossip lets the querier see the ring of now.
func (w *world) gossip() { w.gossipOf(w.nodes) }

func (w *world) gossipOf(nodes []*node) {
	var entries []ring.Entry
	for _, n := range nodes {
		n.m.Seen = time.Now().UnixMilli()
		entries = append(entries, ring.MemberEntry(n.m))
	}
	w.seen = ring.New(w.cfg, entries, time.Now())
}

func (w *world) Ring() *ring.Ring { return w.seen }

func (w *world) Member(m ring.Member) Member {
	for _, n := range w.nodes {
		if n.m.ID == m.ID {
			return n
		}
	}
	return nil
}

func (w *world) member(id string) *node { return w.Member(ring.Member{ID: id}).(*node) }

// write sends a sample to the owners of its series, some of which do not get it. It is acknowledged by a quorum.
func (w *world) write(k key, v float64, skip func(*node) bool) {
	byZone := map[string][]*node{}
	var zones []string
	for _, n := range w.nodes {
		if n.m.State != ring.Active {
			continue
		}
		if byZone[n.m.Zone] == nil {
			zones = append(zones, n.m.Zone)
		}
		byZone[n.m.Zone] = append(byZone[n.m.Zone], n)
	}
	first, ok := k.series%max(1, len(zones)), 0 // of more zones than copies, which get it
	rf := w.seen.RF()
	for i := range min(rf, len(zones)) {
		owners := byZone[zones[(first+i)%len(zones)]]
		n := owners[k.series%len(owners)]
		if n.is == refuses || n.is == hangs || n.gone || skip(n) || k.t < n.held.Floor {
			continue
		}
		n.data[k] = v
		ok++
	}
	if ok >= w.seen.Quorum() {
		w.acked[k] = v
		delete(w.unsure, k)
	} else if _, acked := w.acked[k]; !acked {
		w.unsure[k] = v
	}
}

// ship puts what a node holds below t into a block of a new manifest version.
func (n *node) ship(t int64) {
	w, out := n.w, samples{}
	for k, v := range n.data {
		if _, ok := n.listed[k]; !ok && k.t < t {
			out[k] = v
		}
	}
	if len(out) == 0 {
		return
	}
	next := *w.newest
	next.Version++
	b := manifest.Block{ULID: ulid.MustNew(next.Version, nil), MinTime: math.MaxInt64, AddedVersion: next.Version}
	for k := range out {
		b.MinTime, b.MaxTime = min(b.MinTime, k.t), max(b.MaxTime, k.t+1)
		n.listed[k] = next.Version
	}
	next.Blocks = append(slices.Clone(next.Blocks), b)
	w.blocks[b.ULID], w.newest = out, &next
}

// deleteLocal deletes what is listed and below t.
func (n *node) deleteLocal(t int64) {
	for k, v := range n.listed {
		if k.t < t {
			n.held.DeletedVersion = max(n.held.DeletedVersion, v)
			n.held.Floor = max(n.held.Floor, k.t+1)
			delete(n.data, k)
			delete(n.listed, k)
		}
	}
}

// leave ships everything and goes. Its floor is above all that it had.
func (n *node) leave() {
	n.ship(math.MaxInt64)
	floor := int64(0)
	for k := range n.data {
		floor = max(floor, k.t+1)
	}
	n.m.State, n.m.Floor, n.gone = ring.Left, floor, true
	n.m.Counter++
}

// loseDisk begins anew without what was not shipped.
func (n *node) loseDisk() {
	now := time.Now().UnixMilli()
	lost := false
	for k := range n.data {
		if _, ok := n.listed[k]; !ok {
			lost = true
		}
	}
	n.data, n.listed, n.held = samples{}, map[key]uint64{}, duramenpb.Held{Floor: now}
	if lost {
		n.m.LostBefore = now
	}
	n.m.Epoch++
}

func errAway(id string) error {
	return errkind.New(errkind.Unavailable, "%w: %s: connection refused", duramenpb.ErrAway, id)
}

// silence is how long a client waits for a member that sends nothing.
const silence = 5 * time.Second

// enter is what all calls begin with.
func (n *node) enter(ctx context.Context, heavy bool) error {
	n.w.mu.Lock()
	n.calls++
	wait, is, gone := n.delay(), n.is, n.gone
	n.w.mu.Unlock()
	switch {
	case gone || is == refuses:
		return errAway(n.m.ID)
	case is == hangs:
		wait = silence
	case is == corrupt:
		return errkind.New(errkind.Corrupt, "local block of %s cannot be read", n.m.ID)
	case is == crowded:
		return &errkind.Error{Kind: errkind.Limited, RetryAfter: 2 * time.Second, Err: errors.New("10 reads are being answered")}
	case is == slow && heavy:
		wait = 3 * time.Second
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if is == hangs || n.gone {
		return errAway(n.m.ID)
	}
	return nil
}

func (n *node) Plan(ctx context.Context, id string, _ duramenpb.View, _, _ int64) (duramenpb.Held, error) {
	require.Equal(n.w.t, tenantID, id)
	if err := n.enter(ctx, false); err != nil {
		return duramenpb.Held{}, err
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.held, nil
}

// owed is exactly what the node owes to a view, of what it has.
func (n *node) owed(view duramenpb.View, mint, maxt int64) samples {
	out := samples{}
	for k, v := range n.data.within(mint, maxt) {
		if listed, ok := n.listed[k]; k.t >= view.Cut || !ok || listed > view.Version {
			out[k] = v
		}
	}
	return out
}

func (n *node) Select(
	ctx context.Context, _ string, view duramenpb.View, mint, maxt int64, _ *storage.SelectHints, matchers ...*labels.Matcher,
) (duramenpb.Selection, error) {
	if err := n.enter(ctx, true); err != nil {
		return duramenpb.Selection{}, err
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if n.is == deletes {
		n.ship(math.MaxInt64)
		n.deleteLocal(math.MaxInt64)
	}
	// A chunk holds more than was asked for; what is next to it is in it as it is in a TSDB.
	set := &nodeSet{n: n, ctx: ctx, left: chunked(n.owed(view, mint-20, maxt+20), 3), matchers: matchers}
	if n.is == breaks || n.is == stalls {
		set.breakAt = 1 + n.w.r.IntN(max(1, len(set.left)))
	}
	return duramenpb.Selection{Held: n.held, Series: set, Close: func() { set.closed = true }}, nil
}

// chunked cuts series into chunks of at most n samples.
func chunked(s samples, n int) (out []storage.ChunkSeries) {
	for _, series := range s.series() {
		var metas []chunks.Meta
		var list []chunks.Sample
		flush := func() {
			meta, err := chunks.ChunkFromSamples(list)
			if err == nil && len(list) > 0 {
				metas = append(metas, meta)
			}
			list = nil
		}
		for it := series.Iterator(nil); it.Next() != chunkenc.ValNone; {
			t, v := it.At()
			if list = append(list, point{key{t: t}, v}); len(list) == n {
				flush()
			}
		}
		flush()
		out = append(out, &storage.ChunkSeriesEntry{
			Lset: series.Labels(), ChunkIteratorFn: func(chunks.Iterator) chunks.Iterator {
				return storage.NewListChunkSeriesIterator(metas...)
			},
		})
	}
	return out
}

type nodeSet struct {
	n        *node
	ctx      context.Context
	left     []storage.ChunkSeries
	at       storage.ChunkSeries
	matchers []*labels.Matcher
	breakAt  int // series before the end; 0 is whole
	got      int
	err      error
	closed   bool
}

func (s *nodeSet) Next() bool {
	require.False(s.n.w.t, s.closed, "read after Close")
	for s.err == nil {
		if s.ctx.Err() != nil {
			s.err = s.ctx.Err()
			return false
		}
		s.n.w.mu.Lock()
		is, gone := s.n.is, s.n.gone
		s.n.w.mu.Unlock()
		if s.got++; s.got == s.breakAt || is == refuses || gone {
			if is == stalls {
				select {
				case <-s.ctx.Done():
				case <-time.After(silence):
				}
			}
			s.err = errAway(s.n.m.ID)
			return false
		}
		if len(s.left) == 0 {
			return false
		}
		s.at, s.left = s.left[0], s.left[1:]
		match := true
		for _, m := range s.matchers {
			match = match && m.Matches(s.at.Labels().Get(m.Name))
		}
		if match {
			return true
		}
	}
	return false
}
func (s *nodeSet) At() storage.ChunkSeries           { return s.at }
func (s *nodeSet) Err() error                        { return s.err }
func (s *nodeSet) Warnings() annotations.Annotations { return nil }

func (n *node) LabelValues(
	ctx context.Context, _ string, view duramenpb.View, mint, maxt int64, name string, _ *storage.LabelHints,
	_ ...*labels.Matcher,
) ([]string, duramenpb.Held, error) {
	if err := n.enter(ctx, true); err != nil {
		return nil, duramenpb.Held{}, err
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	var out []string
	for _, s := range n.owed(view, mint, maxt).series() {
		out = append(out, s.Labels().Get(name))
	}
	slices.Sort(out)
	return slices.Compact(out), n.held, nil
}

func (n *node) LabelNames(
	ctx context.Context, _ string, view duramenpb.View, mint, maxt int64, _ *storage.LabelHints, _ ...*labels.Matcher,
) ([]string, duramenpb.Held, error) {
	if err := n.enter(ctx, true); err != nil {
		return nil, duramenpb.Held{}, err
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if len(n.owed(view, mint, maxt)) == 0 {
		return nil, n.held, nil
	}
	return []string{"__name__", "i"}, n.held, nil
}

func (n *node) Exemplars(ctx context.Context, _ string, mint, maxt int64, _ ...[]*labels.Matcher) (
	out []exemplar.QueryResult, err error,
) {
	if err := n.enter(ctx, true); err != nil {
		return nil, err
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	for _, s := range n.data.within(mint, maxt).series() {
		r := exemplar.QueryResult{SeriesLabels: s.Labels()}
		for it := s.Iterator(nil); it.Next() != chunkenc.ValNone; {
			t, v := it.At()
			r.Exemplars = append(r.Exemplars, exemplar.Exemplar{Ts: t, Value: v, HasTs: true})
		}
		out = append(out, r)
	}
	return out, nil
}

func (n *node) Metadata(ctx context.Context, _, family string) ([]duramenpb.Metadata, error) {
	if err := n.enter(ctx, true); err != nil {
		return nil, err
	}
	return []duramenpb.Metadata{{Family: "m", Help: family}}, nil
}

func (n *node) HeadStats(ctx context.Context, _ string, limit int) (duramenpb.HeadStats, error) {
	if err := n.enter(ctx, true); err != nil {
		return duramenpb.HeadStats{}, err
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	all := n.data.series()
	return duramenpb.HeadStats{
		Series: uint64(len(all)), Chunks: int64(len(n.data)), LabelPairs: len(all) + 1, MinTime: 1, MaxTime: int64(limit),
		SeriesByMetric: []duramenpb.Count{{Name: "m", Value: uint64(len(all))}},
		ValuesByLabel:  []duramenpb.Count{{Name: "i", Value: uint64(len(all))}, {Name: "__name__", Value: 1}},
	}, nil
}

func (n *node) UserStats(ctx context.Context, _ string) (duramenpb.UserStats, error) {
	if err := n.enter(ctx, true); err != nil {
		return duramenpb.UserStats{}, err
	}
	return duramenpb.UserStats{Series: uint64(len(n.data.series())), SamplesPerSecond: 1}, nil
}
