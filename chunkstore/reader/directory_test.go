package reader

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
)

// TestDirectoriesAreCountedAsTheyGrow: labels of a directory are decoded when they are asked for, and the cache knows.
func TestDirectoriesAreCountedAsTheyGrow(t *testing.T) {
	f := &fixture{bkt: bucket.NewInMemory()}
	f.add(t, writeBlock(t, rand.New(rand.NewPCG(6, 6)), t.TempDir(), 400, 0, 60, 30))
	after := func(ask func(Session) error) int64 {
		t.Helper()
		s := f.reader(t, f.bkt)
		session := s.local.Session(tenantID, f.blocks, math.MinInt64, math.MaxInt64)
		require.NoError(t, ask(session))
		require.NoError(t, session.Close())
		return s.local.directories.Bytes()
	}
	matching := func(name, value string) *labels.Matcher {
		return labels.MustNewMatcher(labels.MatchEqual, name, value)
	}
	little := after(func(s Session) error {
		_, err := s.Select(t.Context(), nil, matching(labels.MetricName, "m1"))
		return err
	})
	require.Positive(t, little)
	const most = 400 * 20 // the values of the label i take more than that
	for name, much := range map[string]int64{
		"select": after(func(s Session) error {
			_, err := s.Select(t.Context(), nil, matching("i", "7"))
			return err
		}),
		"values": after(func(s Session) error {
			_, err := s.LabelValues(t.Context(), "i", nil)
			return err
		}),
		"values under a matcher": after(func(s Session) error {
			_, err := s.LabelValues(t.Context(), "mod", nil, matching("i", "7"))
			return err
		}),
	} {
		require.Greater(t, much, little+most/2, name)
	}
}

// TestASidecarThatWentAwayIsBuiltAgain: also when its directory is in memory.
func TestASidecarThatWentAwayIsBuiltAgain(t *testing.T) {
	f := smallFixture(t, rand.New(rand.NewPCG(4, 4)))
	rd := f.reader(t, f.bkt, func(o *setting) { o.pages = 0 })
	read := func() string {
		t.Helper()
		q := must(rd.Querier(tenantID, f.blocks, nil, math.MinInt64, math.MaxInt64))
		defer func() { require.NoError(t, q.Close()) }()
		text, err := dump(q.Select(t.Context(), true, nil, everything))
		require.NoError(t, err)
		_, _, err = q.LabelValues(t.Context(), "i", nil, everything)
		require.NoError(t, err)
		return text
	}
	want := read()
	for _, b := range f.blocks {
		require.NoError(t, f.bkt.Delete(t.Context(), sidecarKey(tenantID, b.ULID)))
	}
	require.Equal(t, want, read())
	require.EqualValues(t, len(f.blocks), rd.sidecars.calls.Load())

	for _, key := range []string{"index", "duramen.idx"} {
		require.NoError(t, f.bkt.Delete(t.Context(), block.Key(tenantID, f.blocks[0].ULID, key)))
	}
	q := must(rd.Querier(tenantID, f.blocks, nil, math.MinInt64, math.MaxInt64))
	_, err := dump(q.Select(t.Context(), true, nil, everything))
	require.ErrorIs(t, err, ErrGone)
	require.NoError(t, q.Close())
}

// TestASidecarThatWasReplacedIsNotAccused: by a query that began before, else all of it would be checked again.
func TestASidecarThatWasReplacedIsNotAccused(t *testing.T) {
	f := smallFixture(t, rand.New(rand.NewPCG(5, 5)))
	l := f.reader(t, f.bkt).local
	key := blockKey{tenantID, f.blocks[0].ULID}
	now, err := l.directory(t.Context(), tenantID, f.blocks[0])
	require.NoError(t, err)
	before := *now
	before.version[0]++
	l.accuse(key, &before)
	_, suspect := l.suspect(key)
	require.False(t, suspect)
	l.accuse(key, now)
	_, suspect = l.suspect(key)
	require.True(t, suspect)
}
