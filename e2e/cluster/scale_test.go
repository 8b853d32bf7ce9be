package cluster

import (
	"context"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestThreeSixThree: three ingesters become six and three again, under load, and nobody notices. Those that leave ship what
// they hold, say that they may go, and their disks are thrown away.
func TestThreeSixThree(t *testing.T) {
	s := newStory(t, nil, append(append(ingesters(1), fronts(2)...), back())...)
	s.begin(live)
	s.await("the cluster works", 40, 20)
	s.flawless("three", nil, 40, 20)

	var more []*Node
	for _, m := range ingesters(2)[len(zones):] {
		n, err := s.Add(m)
		require.NoError(t, err)
		more = append(more, n)
	}
	s.flawless("three more", func() {
		s.start(more...)
		s.until("all of them take samples", func() bool {
			for _, n := range more {
				if taken, err := s.client(n).Metric(t.Context(), "duramen_ingester_samples_total"); err != nil || taken == 0 {
					return false
				}
			}
			return true
		})
	}, 80, 40)

	for _, n := range more {
		s.flawless(n.Name+" leaves", func() { s.leave(n) }, 40, 20)
	}
	s.flawless("three again", nil, 40, 20)
	s.end()
}

// leave has an ingester ship what it holds and go for good.
func (s *story) leave(n *Node) {
	s.t.Helper()
	c := s.client(n)
	a, err := c.Post(s.t.Context(), "/ingester/prepare-shutdown")
	require.NoError(s.t, err)
	require.Equal(s.t, 2, a.Status/100, a.Body)
	s.until(n.Name+" may go", func() bool {
		a, err := c.Get(s.t.Context(), "/ingester/prepare-shutdown")
		return err == nil && a.Status == http.StatusOK
	})
	require.NoError(s.t, n.Terminate(startTimeout))
	s.wipe(n)
}

// flush has an ingester ship what it holds of the tenant; it reports whether it could.
func (s *story) flush(n *Node) bool {
	ctx, cancel := context.WithTimeout(s.t.Context(), awaitTimeout)
	defer cancel()
	a, err := s.client(n).Post(ctx, "/ingester/flush?wait=true&tenant="+s.load.cfg.Tenant)
	if err != nil || a.Status != http.StatusOK {
		s.t.Logf("%s does not ship: %d %s %v", n.Name, a.Status, a.Body, err)
		return false
	}
	return true
}
