package manifest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/internal/errkind"
)

func TestRestore(t *testing.T) {
	o, _ := ownerWith(t, testBlock(0), testBlock(1), testBlock(2))
	kept := current(t, o).Blocks[0]
	_, err := o.Restore(t.Context(), "acme", State{}, false)
	require.ErrorIs(t, err, ErrReadable)
	require.Equal(t, errkind.Invalid, errkind.Of(err))

	buckettest.Put(t, o.bkt, Key("acme", 3), "broken")
	follower := newTestOwner(o.bkt, o.now)
	_, err = follower.Refresh(t.Context(), "acme")
	require.Equal(t, errkind.Corrupt, errkind.Of(err))
	last, newest, err := follower.Readable(t.Context(), "acme")
	require.NoError(t, err)
	require.EqualValues(t, 2, last.Version)
	require.EqualValues(t, 3, newest)

	state := State{
		Blocks:  []Block{testBlock(2), kept},
		Removed: []RemovedBlock{{ULID: ids(7)[0], RemovedAt: 1}},
		Lost:    []LostRange{{5, 6, "x"}, {1, 2, "x"}, {5, 6, "x"}},
	}
	m, err := o.Restore(t.Context(), "acme", state, false)
	require.NoError(t, err)
	require.EqualValues(t, 4, m.Version)
	require.Equal(t, ids(0, 2), listed(m))
	require.Equal(t, kept, m.Blocks[0])
	require.EqualValues(t, 4, m.Blocks[1].AddedVersion)
	require.Equal(t, []LostRange{{1, 2, "x"}, {5, 6, "x"}}, m.Lost)
	for _, owner := range []*Owner{o, follower, newTestOwner(o.bkt, o.now)} {
		require.Equal(t, m, current(t, owner), "everybody goes on from there")
	}
	_, err = follower.Add(t.Context(), "acme", testBlock(5))
	require.NoError(t, err)

	m, err = o.Restore(t.Context(), "acme", State{}, true)
	require.NoError(t, err)
	require.EqualValues(t, 6, m.Version, "forced, behind the newest")
	_, err = o.Restore(t.Context(), "acme", State{Blocks: []Block{testBlock(1), testBlock(1)}}, true)
	require.ErrorContains(t, err, "listed twice")
}

func TestRestoreOfNothing(t *testing.T) {
	o := newTestOwner(bucket.NewInMemory(), time.Now)
	m, newest, err := o.Readable(t.Context(), "acme")
	require.NoError(t, err)
	require.Zero(t, m.Version)
	require.Zero(t, newest)
	m, err = o.Restore(t.Context(), "acme", State{Blocks: []Block{testBlock(1)}}, false)
	require.NoError(t, err)
	require.EqualValues(t, 1, m.Version)
}

func TestRestoreGuessesNothing(t *testing.T) {
	o, _ := ownerWith(t, testBlock(0))
	buckettest.Put(t, o.bkt, Key("acme", 2), "broken")
	bkt := faultbucket.New(o.bkt, faultbucket.On("Get", faultbucket.Before))
	faulty := newTestOwner(bkt, o.now)
	_, err := faulty.Restore(t.Context(), "acme", State{}, true)
	require.Equal(t, errkind.Unavailable, errkind.Of(err), "a bucket that fails is no damage")
	_, _, err = faulty.Readable(t.Context(), "acme")
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	bkt.SetPlan(faultbucket.On("PutIfAbsent", faultbucket.After))
	m, err := faulty.Restore(t.Context(), "acme", State{}, false)
	require.NoError(t, err, "an answer that was lost")
	require.EqualValues(t, 3, m.Version)
}
