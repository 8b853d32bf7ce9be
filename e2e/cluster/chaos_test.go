package cluster

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestChaos: faults at random for as long as is asked for, on six ingesters in three zones, each on a host of its own. What
// strikes one zone fails no write and no query; what strikes more may, and is never answered wrong; after each of them the
// cluster works again, and at the end everything acknowledged is there.
func TestChaos(t *testing.T) {
	if *duration == 0 {
		t.Skip("make chaos runs it")
	}
	if !inNamespace(t) {
		return
	}
	members := append(append(ingesters(2), fronts(2)...), back())
	w, err := NewNetwork(len(members))
	require.NoError(t, err)
	t.Cleanup(w.Close)
	for i := range members {
		members[i].Host = w.Host(i)
	}
	s := newStory(t, nil, members...)
	cfg := live
	cfg.Scrapes += 2 * int(*duration/cfg.Interval)
	cfg.GiveUp = 8
	s.begin(cfg)
	s.await("the cluster works", 40, 20)
	rnd := fork(random(t))
	faults := s.faults()
	for begin, round := time.Now(), 0; time.Since(begin) < *duration; round++ {
		f := faults[rnd.IntN(len(faults))]
		what := fmt.Sprintf("round %d, %s", round, f.name)
		t.Log(what)
		do := f.strike(rnd)
		if f.oneZone {
			s.flawless(what, do.begin, 40+rnd.IntN(400), 20)
			s.flawless(what+", over", do.end, 40, 20)
		} else {
			s.phase(what, func() {
				do.begin()
				time.Sleep(time.Duration(rnd.IntN(8000)) * time.Millisecond) // how long it lasts is a part of the schedule
				do.end()
			}, 10, 10)
			s.until("the cluster is whole", s.whole)
			s.flawless("all is well", nil, 40, 20)
		}
	}
	s.end()
}

// whole reports whether the last queries and writes of a moment all succeeded.
func (s *story) whole() bool {
	from := time.Now()
	time.Sleep(time.Second)
	w, q := s.load.Writes.Since(from), s.load.Queries.Since(from)
	return len(w.Failed)+len(q.Failed) == 0 && w.OK > 0 && q.OK > 0
}

// fault is something that goes wrong. One that strikes one zone of ingesters only may not be noticed.
type fault struct {
	name    string
	oneZone bool
	strike  func(rnd *rand.Rand) strike
}

// strike begins and ends a fault.
type strike struct{ begin, end func() }

func (s *story) faults() []fault {
	some := func(rnd *rand.Rand) []*Node { // of one zone
		nodes := s.InZone(zones[rnd.IntN(len(zones))], "ingester")
		return nodes[:1+rnd.IntN(len(nodes))]
	}
	each := func(nodes []*Node, do func(*Node) error) func() {
		return func() {
			for _, n := range nodes {
				require.NoError(s.t, do(n), n.Name)
			}
		}
	}
	silence, reconnect := func(n *Node) error { return n.Host.Silence() }, func(n *Node) error { return n.Host.Reconnect() }
	return []fault{
		{"ingesters of a zone are killed", true, func(rnd *rand.Rand) strike {
			nodes := some(rnd)
			return strike{func() { kill(nodes...) }, func() { s.start(nodes...) }}
		}},
		{"ingesters of a zone are stopped", true, func(rnd *rand.Rand) strike {
			nodes := some(rnd)
			return strike{each(nodes, func(n *Node) error { return n.Pause() }), each(nodes, func(n *Node) error { return n.Resume() })}
		}},
		{"hosts of a zone are silent", true, func(rnd *rand.Rand) strike {
			nodes := some(rnd)
			return strike{each(nodes, silence), each(nodes, reconnect)}
		}},
		{"a process is restarted", true, func(rnd *rand.Rand) strike {
			n := s.Nodes[rnd.IntN(len(s.Nodes))]
			return strike{func() { require.NoError(s.t, n.Terminate(startTimeout)) }, func() { s.start(n) }}
		}},
		{"an ingester ships what it has", true, func(rnd *rand.Rand) strike {
			n := s.With("ingester")[rnd.IntN(len(s.With("ingester")))]
			return strike{func() { require.True(s.t, s.flush(n)) }, func() {}}
		}},
		{"an ingester loses its disk", true, func(rnd *rand.Rand) strike {
			n := some(rnd)[0]
			return strike{func() {
				kill(n)
				s.wipe(n)
				s.start(n)
			}, func() {
				for _, n := range s.With("ingester") { // so that nothing depends on the lost disk any more
					require.True(s.t, s.flush(n))
				}
			}}
		}},
		{"the bucket is away", true, func(*rand.Rand) strike {
			return strike{func() {
				require.NoError(s.t, os.Rename(s.Bucket(), s.Bucket()+".away"))
				require.NoError(s.t, os.WriteFile(s.Bucket(), nil, 0o600))
			}, func() {
				require.NoError(s.t, os.Remove(s.Bucket()))
				require.NoError(s.t, os.Rename(s.Bucket()+".away", s.Bucket()))
			}}
		}},
		{"a front is killed", false, func(rnd *rand.Rand) strike {
			n := s.With("distributor")[rnd.IntN(len(s.With("distributor")))]
			return strike{func() { kill(n) }, func() { s.start(n) }}
		}},
		{"the network falls in two", false, func(rnd *rand.Rand) strike {
			var far []*Node
			for _, n := range s.Nodes {
				if rnd.IntN(2) == 0 {
					far = append(far, n)
				}
			}
			return strike{each(far, func(n *Node) error { return n.Host.Apart() }), each(far, reconnect)}
		}},
		{"the power goes off", false, func(rnd *rand.Rand) strike {
			return strike{func() { kill(s.Nodes...) }, func() { s.start(s.Nodes...) }}
		}},
	}
}
