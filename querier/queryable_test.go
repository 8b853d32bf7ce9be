package querier

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tombstone"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// twoTiers is a querier over the given points in each tier.
func twoTiers(t testing.TB, recent *listQuerier, stored []point) (*Querier, *fakeRecent, *fakeStore) {
	t.Helper()
	b := blockOf(blockID(1), stored)
	rec := &fakeRecent{t: t, answer: func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return recent, duramenpb.Held{}, nil
	}}
	store := &fakeStore{t: t, blocks: map[ulid.ULID][]point{b.ULID: stored}}
	m := &manifest.Manifest{Version: 1, Blocks: []manifest.Block{b}}
	return newQuerier(t, rec, store, &fakeManifests{current: m}), rec, store
}

func old(series int, v float64) point { return point{series: series, t: usualCut - hour, v: v} }

func TestCloseClosesBothTiersOnce(t *testing.T) {
	q, rec, store := twoTiers(t, &listQuerier{points: []point{old(1, 1)}}, []point{old(2, 2)})
	for _, chunks := range []bool{false, true} {
		var lq storage.LabelQuerier
		if chunks {
			cq, err := q.Queryable().ChunkQuerier(0, now.UnixMilli())
			require.NoError(t, err)
			lq = cq
		} else {
			sq, err := q.Queryable().Querier(0, now.UnixMilli())
			require.NoError(t, err)
			lq = sq
		}
		rec.opened, store.opened = nil, nil
		_, _, err := lq.LabelNames(as(t, tenantID), nil)
		require.NoError(t, err)
		_, _, err = lq.LabelNames(as(t, "other"), nil)
		require.ErrorIs(t, err, errOtherTenant)
		require.Len(t, rec.opened, 1)
		require.Len(t, store.opened, 1)
		rec.opened[0].closed = 0
		require.NoError(t, lq.Close())
		require.NoError(t, lq.Close())
		require.Equal(t, 1, rec.opened[0].closed)
		require.Equal(t, 1, store.opened[0].closed)
		_, _, err = lq.LabelNames(as(t, tenantID), nil)
		require.ErrorIs(t, err, ErrClosed)
		rec.opened[0].closed = 0
	}

	unused, err := q.Queryable().Querier(0, 1)
	require.NoError(t, err)
	require.NoError(t, unused.Close())
	_, _, err = unused.LabelValues(t.Context(), "i", nil)
	require.ErrorIs(t, err, tenant.ErrMissingID)
	require.Equal(t, errkind.Unauthenticated, errkind.Of(err))
}

func TestStoreThatFailsToOpenClosesTheOther(t *testing.T) {
	q, rec, _ := twoTiers(t, &listQuerier{}, []point{old(1, 1)})
	q.store = brokenStore{}
	require.ErrorIs(t, askError(t, q, 0, now.UnixMilli()), errBroken)
	require.Equal(t, 1, rec.opened[0].closed)
}

var errBroken = errors.New("broken")

type brokenStore struct{}

func (brokenStore) Querier(string, []manifest.Block, *tombstone.Set, int64, int64) (storage.Querier, error) {
	return nil, errBroken
}

func (brokenStore) ChunkQuerier(string, []manifest.Block, *tombstone.Set, int64, int64) (storage.ChunkQuerier, error) {
	return nil, errBroken
}

func TestErrorOfEitherTierIsTheAnswer(t *testing.T) {
	for _, where := range []string{"recent", "store"} {
		recent := &listQuerier{points: []point{old(1, 1)}}
		q, _, store := twoTiers(t, recent, []point{old(2, 2)})
		if where == "store" {
			store.err = errBroken
		} else {
			recent.err = errBroken
		}
		require.ErrorIs(t, askError(t, q, 0, now.UnixMilli()), errBroken)
		sq, err := q.Queryable().Querier(0, now.UnixMilli())
		require.NoError(t, err)
		_, _, err = sq.LabelNames(as(t, tenantID), nil)
		require.ErrorIs(t, err, errBroken)
		values, _, err := sq.LabelValues(as(t, tenantID), "i", nil)
		require.ErrorIs(t, err, errBroken)
		require.Empty(t, values)
		require.NoError(t, sq.Close())
	}
}

func TestPanicOverABlockFailsTheQueryAlone(t *testing.T) {
	q, _, store := twoTiers(t, &listQuerier{}, []point{old(1, 1)})
	store.onSelect = func() { panic("index out of range") }
	require.ErrorContains(t, askError(t, q, 0, now.UnixMilli()), "index out of range")
}

func goroutine() string {
	buf := make([]byte, 64)
	return string(bytes.Fields(buf[:runtime.Stack(buf, false)])[1])
}

func TestRecentDataIsReadByTheCallersGoroutine(t *testing.T) {
	var recentG, storeG string
	met := make(chan struct{})
	recent := &listQuerier{points: []point{old(1, 1)}, onSelect: func() { recentG = goroutine(); <-met }}
	q, _, store := twoTiers(t, recent, []point{old(2, 2)})
	store.onSelect = func() { storeG = goroutine(); close(met) } // hangs unless both run at the same time
	ask(t, q, 0, now.UnixMilli())
	require.Equal(t, goroutine(), recentG)
	require.NotEqual(t, recentG, storeG)
}

func TestLabelsAreTheUnionInOrderWithinTheLimit(t *testing.T) {
	recent := &listQuerier{points: []point{old(1, 1), old(3, 1)}, warning: errors.New("one zone is away")}
	q, _, _ := twoTiers(t, recent, []point{old(2, 2), old(3, 3)})
	sq, err := q.Queryable().Querier(0, now.UnixMilli())
	require.NoError(t, err)
	values, warnings, err := sq.LabelValues(as(t, tenantID), "i", nil)
	require.NoError(t, err)
	require.Equal(t, []string{"1", "2", "3"}, values)
	require.Len(t, warnings.AsErrors(), 1)
	values, _, err = sq.LabelValues(as(t, tenantID), "i", &storage.LabelHints{Limit: 2})
	require.NoError(t, err)
	require.Equal(t, []string{"1", "2"}, values)
	set := sq.Select(as(t, tenantID), false, nil, everything)
	for set.Next() {
	}
	require.Len(t, set.Warnings().AsErrors(), 1)
	require.NoError(t, sq.Close())
}

// mapped is a recent querier whose strings lie in memory that Close overwrites, as an unmapped file would.
type mapped struct {
	*listQuerier
	memory []byte
}

func (m *mapped) LabelNames(
	context.Context, *storage.LabelHints, ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	return []string{unsafe.String(&m.memory[0], 3), "", unsafe.String(&m.memory[3], 2)}, nil, nil
}

func (m *mapped) Close() error {
	copy(m.memory, "#####")
	return nil
}

func TestLabelsOutliveTheQuerier(t *testing.T) {
	q := newQuerier(t, mappedRecent{}, &fakeStore{t: t}, &fakeManifests{})
	sq, err := q.Queryable().Querier(usualCut, now.UnixMilli())
	require.NoError(t, err)
	names, _, err := sq.LabelNames(as(t, tenantID), nil)
	require.NoError(t, err)
	require.NoError(t, sq.Close())
	require.Equal(t, []string{"abc", "", "de"}, names)
}

type mappedRecent struct{ *fakeRecent }

func (mappedRecent) Querier(
	context.Context, string, duramenpb.View, int64, int64,
) (storage.Querier, duramenpb.Held, error) {
	return &mapped{&listQuerier{}, []byte("abcde")}, duramenpb.Held{}, nil
}

func TestChunksOfBothTiers(t *testing.T) {
	recent := &listQuerier{points: []point{old(1, 1), {series: 2, t: usualCut, v: 5}}}
	q, _, _ := twoTiers(t, recent, []point{old(1, 1), old(2, 2)})
	cq, err := q.Queryable().ChunkQuerier(0, now.UnixMilli())
	require.NoError(t, err)
	got := dump(t, storage.NewSeriesSetFromChunkSeriesSet(cq.Select(as(t, tenantID), true, nil, everything)))
	require.Equal(t, dumpPoints(t, []point{old(1, 1), old(2, 2), {series: 2, t: usualCut, v: 5}}, 0, now.UnixMilli()), got)
	require.NoError(t, cq.Close())
}

func TestConfig(t *testing.T) {
	var cfg Config
	cfg.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	require.NoError(t, cfg.Validate())
	require.Equal(t, Config{
		Timeout: 2 * time.Minute, MaxSamples: 50_000_000, LookbackDelta: 5 * time.Minute, MaxConcurrent: 20,
		RemoteReadSampleLimit: 50_000_000, RemoteReadConcurrentLimit: 10, RemoteReadMaxBytesInFrame: 40 << 20,
		MemoryShare: 0.3,
	}, cfg)
	for field, spoil := range map[string]func(*Config){
		"querier.timeout":        func(c *Config) { c.Timeout = 0 },
		"querier.max_samples":    func(c *Config) { c.MaxSamples = -1 },
		"querier.lookback_delta": func(c *Config) { c.LookbackDelta = 0 },
		"querier.max_concurrent": func(c *Config) { c.MaxConcurrent = 0 },
		"querier.memory_share":   func(c *Config) { c.MemoryShare = 0.7 },

		"querier.remote_read_sample_limit":       func(c *Config) { c.RemoteReadSampleLimit = -1 },
		"querier.remote_read_concurrent_limit":   func(c *Config) { c.RemoteReadConcurrentLimit = -1 },
		"querier.remote_read_max_bytes_in_frame": func(c *Config) { c.RemoteReadMaxBytesInFrame = 0 },
	} {
		bad := cfg
		spoil(&bad)
		_, err := New(bad, nil, nil, nil, nil, nil, nil, nopLog, nil)
		require.ErrorContains(t, err, field)
	}
}
