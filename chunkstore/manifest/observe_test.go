package manifest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/countbucket"
)

func TestRest(t *testing.T) {
	const busy, idle = 10 * time.Minute, 24 * time.Hour
	for since, want := range map[time.Duration]time.Duration{
		0: busy, time.Hour: busy, 2 * time.Hour: busy, 12 * time.Hour: time.Hour, 24 * time.Hour: 2 * time.Hour,
		1000 * time.Hour: idle, -time.Hour: busy,
	} {
		require.Equal(t, want, Rest(since, busy, idle), since)
	}
}

// TestObserveSparesRequests: what lies still costs ever less, what others write is seen, and what this process writes is
// known at once.
func TestObserveSparesRequests(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	clock := func() time.Time { return now }
	bkt := countbucket.New(bucket.NewInMemoryWithClock(clock))
	o, other := newTestOwner(bkt, clock), newTestOwner(bkt, clock)
	ctx := t.Context()
	_, err := other.Add(ctx, "acme", testBlock(1))
	require.NoError(t, err)

	// day observes every five minutes and returns how many operations that took.
	day := func(hours int) int {
		bkt.Reset()
		for range hours * 12 {
			now = now.Add(5 * time.Minute)
			_, err := o.Observe(ctx, "acme")
			require.NoError(t, err)
		}
		return len(bkt.Ops())
	}
	first := day(2)
	require.InDelta(t, 12, first, 3, "every ten minutes while blocks come")
	day(22)
	require.LessOrEqual(t, day(24), 14, "every two hours when none has come for a day; one request each")
	require.LessOrEqual(t, day(24), 12)

	_, err = other.Add(ctx, "acme", testBlock(2))
	require.NoError(t, err)
	seen := 0
	for m := (&Manifest{}); m.Version < 2; seen++ {
		now = now.Add(5 * time.Minute)
		m, err = o.Observe(ctx, "acme")
		require.NoError(t, err)
	}
	require.LessOrEqual(t, seen, 25, "within two hours")
	require.GreaterOrEqual(t, day(1), 6, "and from then on every ten minutes again")

	day(48)
	_, err = o.Add(ctx, "acme", testBlock(3))
	require.NoError(t, err)
	bkt.Reset()
	m, err := o.Observe(ctx, "acme")
	require.NoError(t, err)
	require.EqualValues(t, 3, m.Version)
	require.Empty(t, bkt.Ops())
	require.GreaterOrEqual(t, day(1), 6)
}

// TestAListingProvesWhatIsInMemory: an object of the same number that was written again is read again.
func TestAListingProvesWhatIsInMemory(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	clock := func() time.Time { return now }
	inner := bucket.NewInMemoryWithClock(clock)
	bkt := countbucket.New(inner)
	o := newTestOwner(bkt, clock)
	_, err := newTestOwner(inner, clock).Add(t.Context(), "acme", testBlock(1))
	require.NoError(t, err)
	_, err = o.Current(t.Context(), "acme")
	require.NoError(t, err)
	refresh := func() *Manifest {
		now = now.Add(2 * time.Hour)
		bkt.Reset()
		m, err := o.Refresh(t.Context(), "acme")
		require.NoError(t, err)
		return m
	}
	refresh()
	require.Len(t, bkt.Ops(), 1, "the listing alone")

	// Somebody has put a copy of the folder back, with another history.
	require.NoError(t, inner.Delete(t.Context(), Key("acme", 1)))
	_, err = newTestOwner(inner, clock).Add(t.Context(), "acme", testBlock(2))
	require.NoError(t, err)
	require.Equal(t, testBlock(2).ULID, refresh().Blocks[0].ULID)
}
