package querier

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tombstone"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tenantID = "t1"

var (
	nopLog     = slog.New(slog.DiscardHandler)
	now        = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	usualCut   = now.Add(-recentRange).UnixMilli()
	everything = labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, ".+")
)

// noLimits is what all tenants have where a test is about something else.
var noLimits = tenant.StaticLimits(tenant.Values{})

func clock() time.Time { return now }

func testConfig(t testing.TB) Config {
	t.Helper()
	return Config{
		Timeout: time.Minute, MaxSamples: 50_000_000, LookbackDelta: 5 * time.Minute, MaxConcurrent: 4,
		RemoteReadSampleLimit: 50_000_000, RemoteReadConcurrentLimit: 10, RemoteReadMaxBytesInFrame: 40 << 20,
	}
}

func newQuerier(t testing.TB, recent Recent, store Store, manifests Manifests) *Querier {
	t.Helper()
	q, err := New(testConfig(t), recent, &tsdbExtras{t: t}, store, manifests, noLimits, clock, nopLog, nil)
	require.NoError(t, err)
	looked(q, tenantID)
	return q
}

// looked makes q believe that it has just compared the manifest of a tenant with the bucket.
func looked(q *Querier, id string) {
	q.versions.query(id, q.now())
	q.versions.change(id, func(k *knownVersion) { k.looked = q.now() })
}

func as(t testing.TB, id string) context.Context {
	t.Helper()
	return tenant.WithID(t.Context(), id)
}

// point is a float sample of the series {i="…"}.
type point struct {
	series int
	t      int64
	v      float64
}

func (p point) labels() labels.Labels {
	return labels.FromStrings("__name__", "m", "i", fmt.Sprint(p.series))
}

func (p point) T() int64                      { return p.t }
func (p point) ST() int64                     { return 0 }
func (p point) F() float64                    { return p.v }
func (p point) H() *histogram.Histogram       { return nil }
func (p point) FH() *histogram.FloatHistogram { return nil }
func (p point) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (p point) Copy() chunks.Sample           { return p }

// listQuerier answers from points in memory. It fails what a tier must not do.
type listQuerier struct {
	t          testing.TB
	points     []point
	mint, maxt int64
	closed     int
	onSelect   func()
	err        error
	warning    error
}

func (q *listQuerier) series() []storage.Series {
	bySeries := map[int][]chunks.Sample{}
	for _, p := range q.points {
		if q.mint <= p.t && p.t <= q.maxt {
			bySeries[p.series] = append(bySeries[p.series], p)
		}
	}
	var out []storage.Series
	for i, samples := range bySeries {
		slices.SortFunc(samples, func(a, b chunks.Sample) int { return int(a.T() - b.T()) })
		out = append(out, storage.NewListSeries(point{series: i}.labels(), samples))
	}
	sort.Slice(out, func(i, j int) bool { return labels.Compare(out[i].Labels(), out[j].Labels()) < 0 })
	return out
}

func (q *listQuerier) Select(
	context.Context, bool, *storage.SelectHints, ...*labels.Matcher,
) storage.SeriesSet {
	require.Zero(q.t, q.closed, "used after Close")
	if q.onSelect != nil {
		q.onSelect()
	}
	if q.err != nil {
		return storage.ErrSeriesSet(q.err)
	}
	return &listSet{series: q.series(), warning: q.warning}
}

func (q *listQuerier) LabelValues(
	_ context.Context, name string, _ *storage.LabelHints, _ ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	var out []string
	for _, s := range q.series() {
		out = append(out, s.Labels().Get(name))
	}
	slices.Sort(out)
	return slices.Compact(out), (&listSet{warning: q.warning}).Warnings(), q.err
}

func (q *listQuerier) LabelNames(
	context.Context, *storage.LabelHints, ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	return []string{"__name__", "i"}, nil, q.err
}

func (q *listQuerier) Close() error { q.closed++; return nil }

type listSet struct {
	series  []storage.Series
	at      storage.Series
	warning error
}

func (s *listSet) Next() bool {
	if len(s.series) == 0 {
		return false
	}
	s.at, s.series = s.series[0], s.series[1:]
	return true
}
func (s *listSet) At() storage.Series { return s.at }
func (s *listSet) Err() error         { return nil }
func (s *listSet) Warnings() annotations.Annotations {
	if s.warning == nil {
		return nil
	}
	return annotations.New().Add(s.warning)
}

// fakeRecent is an ingester whose answer and state a test decides.
type fakeRecent struct {
	t      testing.TB
	answer func(view duramenpb.View, mint, maxt int64) (*listQuerier, duramenpb.Held, error)
	views  []duramenpb.View
	opened []*listQuerier
}

func (f *fakeRecent) Querier(
	_ context.Context, id string, view duramenpb.View, mint, maxt int64,
) (storage.Querier, duramenpb.Held, error) {
	require.Equal(f.t, tenantID, id)
	f.views = append(f.views, view)
	q, held, err := f.answer(view, mint, maxt)
	if err != nil {
		return nil, held, err
	}
	q.t, q.mint, q.maxt = f.t, mint, maxt
	f.opened = append(f.opened, q)
	return q, held, nil
}

func (f *fakeRecent) ChunkQuerier(
	ctx context.Context, id string, view duramenpb.View, mint, maxt int64,
) (storage.ChunkQuerier, duramenpb.Held, error) {
	q, held, err := f.Querier(ctx, id, view, mint, maxt)
	if err != nil {
		return nil, held, err
	}
	return listChunkQuerier{q.(*listQuerier)}, held, nil
}

// listChunkQuerier encodes what a listQuerier returns.
type listChunkQuerier struct{ *listQuerier }

func (q listChunkQuerier) Select(
	ctx context.Context, sorted bool, hints *storage.SelectHints, m ...*labels.Matcher,
) storage.ChunkSeriesSet {
	return storage.NewSeriesSetToChunkSet(q.listQuerier.Select(ctx, sorted, hints, m...))
}

// fakeStore holds blocks in memory.
type fakeStore struct {
	t        testing.TB
	blocks   map[ulid.ULID][]point
	onSelect func()
	err      error
	opened   []*listQuerier
}

func (f *fakeStore) Querier(
	id string, blocks []manifest.Block, hidden *tombstone.Set, mint, maxt int64,
) (storage.Querier, error) {
	require.Equal(f.t, tenantID, id)
	q := &listQuerier{t: f.t, mint: mint, maxt: maxt, onSelect: f.onSelect, err: f.err}
	for _, b := range blocks {
		points, ok := f.blocks[b.ULID]
		require.True(f.t, ok, "block %s is not in the store", b.ULID)
		for _, p := range points {
			if !isHidden(hidden.Of(&b), p) {
				q.points = append(q.points, p)
			}
		}
	}
	f.opened = append(f.opened, q)
	return q, nil
}

func (f *fakeStore) ChunkQuerier(
	id string, blocks []manifest.Block, hidden *tombstone.Set, mint, maxt int64,
) (storage.ChunkQuerier, error) {
	q, err := f.Querier(id, blocks, hidden, mint, maxt)
	if err != nil {
		return nil, err
	}
	return listChunkQuerier{q.(*listQuerier)}, nil
}

// fakeManifests knows one version and, after Refresh, another if there is one.
type fakeManifests struct {
	current, fresh *manifest.Manifest
	unlisted       ulid.ULID
	err            error
	asked          int
}

func (f *fakeManifests) Current(context.Context, string) (*manifest.Manifest, error) {
	f.asked++
	return f.known(), f.err
}

// known is never nil: a tenant without a manifest has version 0.
func (f *fakeManifests) known() *manifest.Manifest {
	if f.current == nil {
		return &manifest.Manifest{}
	}
	return f.current
}

func (f *fakeManifests) Unlisted(context.Context, string) (ulid.ULID, error) {
	return f.unlisted, f.err
}

func (f *fakeManifests) Known(string) *manifest.Manifest { return f.current }

func (f *fakeManifests) Refresh(context.Context, string) (*manifest.Manifest, error) {
	f.asked++
	if f.err == nil && f.fresh != nil {
		f.current = f.fresh
	}
	return f.known(), f.err
}

// noDeletions are manifests of whom nothing is deleted.
type noDeletions struct{}

func (noDeletions) Delete(context.Context, string, manifest.Deletion) (manifest.Deletion, error) {
	return manifest.Deletion{}, errBroken
}
func (noDeletions) CancelDeletion(context.Context, string, uint64) error     { return errBroken }
func (noDeletions) HastenDeletions(context.Context, string, ...uint64) error { return errBroken }

func (f *fakeManifests) Delete(_ context.Context, _ string, d manifest.Deletion) (manifest.Deletion, error) {
	d.ID = max(1, f.known().NextDeletion)
	f.change(func(m *manifest.Manifest) {
		m.NextDeletion, m.Deletions = d.ID+1, append(slices.Clone(m.Deletions), d)
	})
	return d, f.err
}

func (f *fakeManifests) CancelDeletion(_ context.Context, _ string, id uint64) error {
	f.change(func(m *manifest.Manifest) {
		m.Deletions = slices.DeleteFunc(slices.Clone(m.Deletions), func(d manifest.Deletion) bool { return d.ID == id })
	})
	return f.err
}

func (f *fakeManifests) HastenDeletions(context.Context, string, ...uint64) error {
	f.change(func(m *manifest.Manifest) {
		m.Deletions = slices.Clone(m.Deletions)
		for i := range m.Deletions {
			m.Deletions[i].Urgent = true
		}
	})
	return f.err
}

// change makes a version.
func (f *fakeManifests) change(with func(*manifest.Manifest)) {
	m := *f.known()
	m.Version++
	with(&m)
	f.current, f.fresh = &m, nil
}

// isHidden reports whether deletions mean a point.
func isHidden(hidden *tombstone.Set, p point) bool {
	return tombstones.Interval{Mint: p.t, Maxt: p.t}.IsSubrange(hidden.Intervals(p.labels()))
}

func blockID(n uint64) ulid.ULID { return ulid.MustNew(n, nil) }

func blockOf(id ulid.ULID, points []point) manifest.Block {
	b := manifest.Block{ULID: id, MinTime: math.MaxInt64, MaxTime: math.MinInt64}
	for _, p := range points {
		b.MinTime, b.MaxTime = min(b.MinTime, p.t), max(b.MaxTime, p.t+1)
	}
	return b
}

// dump reads a series set to text.
func dump(t testing.TB, set storage.SeriesSet) string {
	t.Helper()
	var b strings.Builder
	for set.Next() {
		fmt.Fprintln(&b, set.At().Labels())
		it := set.At().Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			ts, v := it.At()
			fmt.Fprintln(&b, ts, v)
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	return b.String()
}

func dumpPoints(t testing.TB, points []point, mint, maxt int64) string {
	t.Helper()
	return dump(t, &listSet{series: (&listQuerier{points: points, mint: mint, maxt: maxt}).series()})
}
