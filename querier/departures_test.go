package querier

import (
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// leaving is a cluster of which a member leaves: what it held is in a block that the manifest in memory does not list,
// and who stays says nothing of that block.
type leaving struct {
	*Querier
	manifests *fakeManifests
	held      duramenpb.Held
	all       []point
}

func newLeaving(t *testing.T) *leaving {
	t.Helper()
	old, recent := points(usualCut-4*hour, usualCut-2*hour, hour/4), points(usualCut, now.UnixMilli(), hour/4)
	b := blockOf(blockID(1), old)
	l := &leaving{
		manifests: &fakeManifests{
			current: &manifest.Manifest{Version: 1},
			fresh:   &manifest.Manifest{Version: 2, Blocks: []manifest.Block{b}},
		},
		held: duramenpb.Held{Floor: usualCut - hour}, all: append(old, recent...),
	}
	rec := &fakeRecent{t: t, answer: func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return &listQuerier{points: recent}, l.held, nil
	}}
	l.Querier = newQuerier(t, rec, &fakeStore{t: t, blocks: map[ulid.ULID][]point{b.ULID: old}}, l.manifests)
	return l
}

func TestManifestOfBeforeAMemberLeftIsNotUsed(t *testing.T) {
	l := newLeaving(t)
	before := dumpPoints(t, l.all, usualCut-time.Hour.Milliseconds(), now.UnixMilli())
	require.Equal(t, before, ask(t, l.Querier, 0, now.UnixMilli()), "the member is there: its answer is not of this test")

	l.held.Departures = 1 // its floor is below that of another: it alone tells nothing
	require.Equal(t, dumpPoints(t, l.all, 0, now.UnixMilli()), ask(t, l.Querier, 0, now.UnixMilli()))
	asked := l.manifests.asked
	ask(t, l.Querier, 0, now.UnixMilli())
	require.Equal(t, asked+1, l.manifests.asked, "one plan, once it is known")
}

func TestDepartureIsLearntForAllTenantsAndAlsoWithoutTheBucket(t *testing.T) {
	l := newLeaving(t)
	l.held.Departures = 1
	away := errkind.New(errkind.Unavailable, "bucket in Hamburg: connection refused")
	l.manifests.err = away
	require.ErrorIs(t, askError(t, l.Querier, 0, now.UnixMilli()), away)
	require.ErrorIs(t, askError(t, l.Querier, 0, now.UnixMilli()), away, "nor by the next query, which knew of it")
	require.NotEmpty(t, ask(t, l.Querier, usualCut, now.UnixMilli()), "recent samples need no manifest")
	l.manifests.err = nil
	require.Equal(t, dumpPoints(t, l.all, 0, now.UnixMilli()), ask(t, l.Querier, 0, now.UnixMilli()))
}

func TestFloorThatRoseNeedsAManifestOfLater(t *testing.T) {
	l := newLeaving(t)
	l.held.Floor = usualCut + hour // a new disk in the place of one that had put everything into the bucket
	away := errkind.New(errkind.Unavailable, "bucket in Hamburg: connection refused")
	l.manifests.err = away
	require.ErrorIs(t, askError(t, l.Querier, 0, now.UnixMilli()), away)
	require.ErrorIs(t, askError(t, l.Querier, 0, now.UnixMilli()), away, "nor by the next query, which knew of it")
	l.manifests.err = nil
	require.Equal(t, dumpPoints(t, l.all, 0, now.UnixMilli()), ask(t, l.Querier, 0, now.UnixMilli()))
}
