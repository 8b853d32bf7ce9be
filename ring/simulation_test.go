package ring

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// world is a cluster without processes: tables, messages that are late or lost, clocks that are wrong, and a time that
// the test moves on, a second a step.
type world struct {
	rnd   *rand.Rand
	cfg   Config
	now   time.Time
	nodes []*node
	mail  map[int64][]letter // by the second at which it arrives
	chaos bool
}

type letter struct {
	to      *node
	entries []Entry
}

// node is one process: its own word, what it knows, and what its disk keeps of both.
type node struct {
	self  Member
	table *Table
	skew  time.Duration
	group int // who can talk with whom
	up    bool
	gone  bool // left, or forgotten and not coming back
	// steady nodes know that another one is gone, and live: what only the dead know is lost in any cluster.
	steady bool
	news   []news
}

// news is a change that the node passes on for some seconds.
type news struct {
	until time.Time
	entry Entry
}

func newWorld(rnd *rand.Rand, n int) *world {
	w := &world{
		rnd: rnd, now: start, chaos: true, mail: map[int64][]letter{},
		cfg: Config{ReplicationFactor: 3, HeartbeatTimeout: 2 * time.Minute}.withDefaults(),
	}
	for i := range n {
		m := ingester(string(rune('a'+i%3)), i/3)
		m.Epoch, m.Counter = 1, 0
		node := &node{self: m, table: NewTable(), up: true}
		if i%4 == 0 {
			node.skew = time.Duration(rnd.IntN(1200)-600) * time.Second
		}
		w.nodes = append(w.nodes, node)
		w.announce(node)
	}
	return w
}

// announce is a heartbeat, or a change that the node makes to its own entry.
func (w *world) announce(n *node) {
	n.self.Counter++
	n.self.Heartbeat = ms(w.now.Add(n.skew))
	w.learn(n, MemberEntry(n.self))
}

// learn merges entries into what a node knows, and makes it pass on what was new.
func (w *world) learn(n *node, entries ...Entry) {
	for _, e := range Merge(n.table, w.now.Add(n.skew), entries...) {
		n.news = append(n.news, news{until: w.now.Add(3 * time.Second), entry: e})
	}
	if seen, ok := n.table.Get(n.self.ID); ok {
		if self, changed := Reclaim(n.self, seen); changed {
			n.self = self
			w.announce(n)
		}
	}
}

// send posts entries, which may be lost or late.
func (w *world) send(to *node, entries []Entry) {
	delay := int64(1)
	if w.chaos {
		if w.rnd.IntN(5) == 0 {
			return
		}
		if w.rnd.IntN(10) == 0 {
			delay += w.rnd.Int64N(40)
		}
	}
	w.mail[w.now.Unix()+delay] = append(w.mail[w.now.Unix()+delay], letter{to: to, entries: entries})
}

// peer is a random other node that can be reached; nil when the one that was drawn cannot.
func (w *world) peer(n *node) *node {
	to := w.nodes[w.rnd.IntN(len(w.nodes))]
	if to == n || !to.up || to.group != n.group {
		return nil
	}
	return to
}

// step is a second of all nodes: news to somebody, now and then all that two of them know.
func (w *world) step() {
	w.now = w.now.Add(time.Second)
	for _, l := range w.mail[w.now.Unix()] {
		if l.to.up {
			w.learn(l.to, l.entries...)
		}
	}
	delete(w.mail, w.now.Unix())
	full := 8
	if w.chaos {
		full = 40
	}
	for i, n := range w.nodes {
		if !n.up {
			continue
		}
		if (int(w.now.Unix())+i)%60 == 0 && w.chaos {
			w.announce(n)
		}
		n.news = slices.DeleteFunc(n.news, func(news news) bool { return news.until.Before(w.now) })
		if to := w.peer(n); to != nil && len(n.news) > 0 {
			var entries []Entry
			for _, news := range n.news {
				entries = append(entries, news.entry)
			}
			w.send(to, entries)
		}
		if to := w.peer(n); to != nil && w.rnd.IntN(full) == 0 {
			w.send(to, n.table.Entries())
			w.send(n, to.table.Entries())
		}
	}
}

// upset does one thing to one node.
func (w *world) upset() {
	n := w.nodes[w.rnd.IntN(len(w.nodes))]
	if n.gone || n.steady {
		return
	}
	if !n.up {
		switch w.rnd.IntN(3) {
		case 0: // it comes back with its disk
			n.self.Epoch, n.self.Counter, n.up = n.self.Epoch+1, 0, true
		case 1: // it comes back without: it does not even know how often it had started
			n.table, n.news, n.up = NewTable(), nil, true
			n.self.Epoch, n.self.Counter, n.self.StorageID = 1, 0, n.self.StorageID+"*"
			n.self.LostBefore = ms(w.now)
		case 2: // another one forgets it, in its last epoch that it knows
			for _, other := range w.nodes {
				e, ok := other.table.Get(n.self.ID)
				if other.up && ok && e.Forgotten == nil && e.Member.Epoch == n.self.Epoch {
					w.learn(other, ForgetEntry(Tombstone{ID: n.self.ID, Epoch: e.Member.Epoch, At: ms(w.now)}))
					other.steady, n.gone = true, w.rnd.IntN(2) == 0
					break
				}
			}
			return
		}
		w.announce(n)
		return
	}
	switch w.rnd.IntN(4) {
	case 0, 1:
		n.up = false
	case 2:
		n.self.State = []State{Active, ReadOnly}[w.rnd.IntN(2)]
		w.announce(n)
	case 3: // it leaves, and stops when somebody has heard of it
		if to := w.peer(n); to != nil {
			n.self.State, n.self.Floor = Left, ms(w.now)
			w.announce(n)
			w.learn(to, n.table.Entries()...)
			to.steady, n.up, n.gone = true, false, true
		}
	}
}

// settled reports whether all tables are equal.
func (w *world) settled() bool {
	var first *Table
	for _, n := range w.nodes {
		switch {
		case !n.up:
			continue
		case first == nil:
			first = n.table
		case len(n.table.entries) != len(first.entries):
			return false
		}
		for id, e := range n.table.entries {
			if other := first.entries[id]; other == nil || newer(e, other) || newer(other, e) {
				return false
			}
		}
	}
	return true
}

// TestSimulation: 300 ingesters with lost and late messages, splits, restarts, wiped disks, forgetting and wrong clocks.
// When it is over all views are one, everybody who is up is in it as it says itself, and nobody who is gone.
func TestSimulation(t *testing.T) {
	for _, seed := range []uint64{1} {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			rnd := seeded(t, seed)
			w := newWorld(rnd, 300)
			for second := range 40 {
				switch second {
				case 8, 24:
					for _, n := range w.nodes {
						n.group = rnd.IntN(2 + second/24)
					}
				case 20, 34:
					for _, n := range w.nodes {
						n.group = 0
					}
				}
				for range 5 {
					w.upset()
				}
				w.step()
			}
			w.chaos = false
			took := 0
			for !w.settled() {
				took++
				require.Less(t, took, 120, "views did not meet")
				w.step()
			}
			t.Logf("seed %d: one view %d s after the last disturbance", seed, took)
			w.check(t)
		})
	}
}

func (w *world) check(t *testing.T) {
	for _, n := range w.nodes { // a last heartbeat that all have heard of
		if n.up {
			w.announce(n)
			word, _ := n.table.Get(n.self.ID)
			for _, other := range w.nodes {
				if other.up {
					Merge(other.table, w.now.Add(other.skew), word)
				}
			}
		}
	}
	var version uint64
	for i, n := range w.nodes {
		if !n.up || i%10 != 0 {
			continue
		}
		now := w.now.Add(n.skew)
		r := New(w.cfg, n.table.Entries(), now)
		if version == 0 {
			version = r.Version()
		}
		require.Equal(t, version, r.Version(), "one view, one placement")
		for _, other := range w.nodes {
			m, ok := r.Get(other.self.ID)
			switch {
			case other.up:
				require.True(t, ok, "%s is missing", other.self.ID)
				require.True(t, r.Alive(m, now), "%s is up", other.self.ID)
				m.Seen = other.self.Seen
				require.Equal(t, other.self, m)
			case other.gone && ok:
				require.Equal(t, Left, m.State, "%s is a ghost", other.self.ID)
			}
		}
	}
}
