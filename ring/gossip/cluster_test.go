package gossip

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/ring"
)

// twelve are the names of hosts in three zones.
func twelve() []string {
	var names []string
	for i := range 4 {
		for _, zone := range []string{"a", "b", "c"} {
			names = append(names, fmt.Sprintf("%s-%d", zone, i))
		}
	}
	return names
}

// agree reports whether all running nodes see the same placement, with so many ingesters ACTIVE.
func (w *world) agree(active int) bool {
	var version uint64
	for _, h := range w.host {
		if h.Node == nil {
			continue
		}
		r := h.Ring()
		if version == 0 {
			version = r.Version()
		}
		if r.Version() != version || len(r.Members(ring.RoleIngester)) != active {
			return false
		}
	}
	return true
}

func TestTwelveConverge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twelve()...)
		for _, name := range twelve() {
			w.at(name).activate()
		}
		w.eventually("all see all", func() bool { return w.agree(12) })
		began := time.Now()
		w.at("b-2").SetState(ring.ReadOnly)
		w.eventually("all hear the news", func() bool {
			for _, h := range w.host {
				if m, _ := h.Ring().Get("b-2"); m.State != ring.ReadOnly {
					return false
				}
			}
			return true
		})
		require.Less(t, time.Since(began), 3*time.Second)
	})
}
