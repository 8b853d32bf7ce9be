package cluster

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCables: every process has a host of its own. The cable of an ingester is cut, so that its packets vanish and nobody is
// told; all writes and queries go on. Then the network falls in two: the side with two zones works, the other one says 503
// and acknowledges nothing; joined again, both do, and everything is there.
func TestCables(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	members := append(append(ingesters(1), fronts(2)...), back())
	w, err := NewNetwork(len(members))
	require.NoError(t, err)
	t.Cleanup(w.Close)
	for i := range members {
		members[i].Host = w.Host(i)
	}
	s := newStory(t, nil, members...)
	s.begin(live)
	s.await("the cluster works", 40, 20)
	before := s.flawless("all are there", nil, 80, 40)

	silent := s.flawless("a host is silent", func() { require.NoError(t, s.Node("ingester-b-0").Host.Silence()) }, 100, 50)
	s.requireGap(silentBar, before, silent)
	s.flawless("it is heard again", func() { require.NoError(t, s.Node("ingester-b-0").Host.Reconnect()) }, 40, 20)

	far := []*Node{s.Node("ingester-c-0"), s.Node("front-1")}
	parted := time.Now()
	parts := s.phase("the network falls in two", func() {
		for _, n := range far {
			require.NoError(t, n.Host.Apart())
		}
		s.until("the smaller side refuses", func() bool {
			return refusals(s.load.Writes.Since(parted)) > 2 && refusals(s.load.Queries.Since(parted)) > 2
		})
	}, 10, 5)
	for _, failed := range append(parts.writes.Failed, parts.queries.Failed...) {
		require.Equal(t, far[1].URL(), failed.Target, "only the smaller side fails: %s", failed)
		require.Equal(t, http.StatusServiceUnavailable, failed.Status, failed)
	}
	s.phase("it is whole again", func() {
		for _, n := range far {
			require.NoError(t, n.Host.Reconnect())
		}
		joined := time.Now()
		s.until("the smaller side works", func() bool {
			return s.load.Writes.Of(far[1].URL()).Since(joined).OK > 10 && s.load.Queries.Of(far[1].URL()).Since(joined).OK > 10
		})
	}, 1, 1)
	s.flawless("all is well", nil, 40, 20)
	s.end()
}

func refusals(s Summary) int {
	n := 0
	for _, a := range s.Failed {
		if a.Status == http.StatusServiceUnavailable {
			n++
		}
	}
	return n
}
