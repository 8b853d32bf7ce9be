package cluster

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAnIngesterAway: in each of three zones lives one ingester. One is killed under load, then one is stopped, then one
// loses its disk, and each time all writes and queries go on as if nothing had happened. Only when another zone is away
// beside the one that lost its disk may queries about what that disk held be refused, and none is wrong.
func TestAnIngesterAway(t *testing.T) {
	s := newStory(t, nil, append(append(ingesters(1), fronts(2)...), back())...)
	a, b, c := s.Node("ingester-a-0"), s.Node("ingester-b-0"), s.Node("ingester-c-0")
	s.begin(live)
	s.await("the cluster works", 40, 20)
	before := s.flawless("all are there", nil, 80, 40)

	killed := s.flawless("one is killed", func() { kill(b) }, 100, 50)
	s.requireGap(gapBar, before, killed)
	s.flawless("it is back", func() { s.start(b) }, 40, 20)

	stopped := s.flawless("one is stopped", func() { require.NoError(t, c.Pause()) }, 100, 50)
	s.requireGap(silentBar, before, stopped)
	s.flawless("it goes on", func() { require.NoError(t, c.Resume()) }, 40, 20)

	s.flawless("one loses its disk", func() {
		kill(a)
		s.wipe(a)
		s.start(a)
	}, 40, 20)
	lost := s.phase("another zone is away as well", func() { kill(c) }, 80, 0)
	require.Empty(t, lost.writes.Failed, lost.writes.First())
	s.phase("it comes back", func() { s.start(c) }, 1, 10)
	s.flawless("and all is well", nil, 40, 20)
	s.end()
}
