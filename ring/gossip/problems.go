package gossip

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/duramendb/duramen/ring"
)

// The kinds of problems that a person has to solve.
const (
	problemIdentity = "identity"
	problemOrdinal  = "ordinal"
	problemZones    = "zones"
	problemDisk     = "disk"
	problemCopies   = "replication-factor"
	problemAlone    = "alone"
)

func problemKinds() []string {
	return []string{problemIdentity, problemOrdinal, problemZones, problemDisk, problemCopies, problemAlone}
}

// zonesPatience is how long the zones of a cluster may be too few before that is said: it starts one zone at a time.
const zonesPatience = 30 * time.Second

// problem is what is wrong and since when.
type problem struct {
	text  string
	since time.Time
	said  bool
}

// setProblem notes what is wrong. The caller holds the mutex.
func (n *Node) setProblem(kind, text string) {
	p, ok := n.problems[kind]
	if !ok {
		p.since = n.now()
	}
	p.text = text
	n.problems[kind] = p
	n.metrics.problems.WithLabelValues(kind).Set(1)
}

// clearProblem notes that it is right again. The caller holds the mutex.
func (n *Node) clearProblem(kind string) {
	delete(n.problems, kind)
	n.metrics.problems.WithLabelValues(kind).Set(0)
}

// Problems returns what a person has to look at, for pages.
func (n *Node) Problems() []string {
	n.mtx.Lock()
	defer n.mtx.Unlock()
	var texts []string
	for _, kind := range slices.Sorted(maps.Keys(n.problems)) {
		if text := n.problems[kind].text; !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	return texts
}

// checkProblems looks for what only the whole ring shows. The caller holds the mutex.
func (n *Node) checkProblems(now time.Time) {
	if text := n.copiesFault(now); text == "" {
		n.clearProblem(problemCopies)
	} else {
		if _, known := n.problems[problemCopies]; !known {
			n.log.Error("members differ in the replication factor", "fault", text)
		}
		n.setProblem(problemCopies, text)
	}
	text := zonesFault(n.Ring())
	if text == "" {
		n.clearProblem(problemZones)
	} else {
		n.setProblem(problemZones, text)
	}
	if p := n.problems[problemZones]; text != "" && !p.said && now.Sub(p.since) >= zonesPatience {
		n.log.Error("zones do not fit the replication factor", "fault", text)
		p.said = true
		n.problems[problemZones] = p
	}
	if n.own.State == ring.Joining {
		return // Activate looks after the ordinal
	}
	if reason := n.obstacle(); reason != "" && n.foreign == nil {
		if _, known := n.problems[problemOrdinal]; !known {
			n.log.Error("this ingester is given no series", "reason", reason)
		}
		n.setProblem(problemOrdinal, reason)
	} else {
		n.clearProblem(problemOrdinal)
	}
}

// copiesFault says when a living member counts copies otherwise than this one: then a write that one of them calls safe is
// not, and a query of the other leaves out zones that it needs. The caller holds the mutex.
func (n *Node) copiesFault(now time.Time) string {
	r := n.Ring()
	for _, e := range r.All() {
		m := e.Member
		if e.Forgotten != nil || m.ID == n.own.ID || m.State == ring.Left || m.ReplicationFactor == 0 ||
			m.ReplicationFactor == r.RF() || !r.Alive(m, now) {
			continue
		}
		return fmt.Sprintf("%s at %s keeps %d copies and this member %d: set the same -ring.replication-factor everywhere",
			m.ID, m.Address, m.ReplicationFactor, r.RF())
	}
	return ""
}

// zonesFault says when the configured zones cannot carry the copies: with two zones and three copies each loss of a zone
// stops writes, and some with a zone and some without is a mistake.
func zonesFault(r *ring.Ring) string {
	zones, without := map[string]bool{}, ""
	for _, m := range r.Ingesters() {
		if m.Zone == "" {
			without = m.ID
			continue
		}
		zones[m.Zone] = true
	}
	names := strings.Join(slices.Sorted(maps.Keys(zones)), ", ")
	switch {
	case len(zones) == 0 && without == "":
		return "no ingester is known: writes and queries are answered with 503"
	case len(zones) > 0 && without != "":
		return fmt.Sprintf("some ingesters have a zone (%s) and %s has none: set -ring.instance-zone everywhere or nowhere",
			names, without)
	case len(zones) > 0 && len(zones) < r.RF():
		return fmt.Sprintf("ingesters are in %d zones (%s), and %d copies are to be in as many zones: the loss of one zone "+
			"stops writes. Add zones, or set no -ring.instance-zone anywhere", len(zones), names, r.RF())
	default:
		return ""
	}
}
