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
)

func problemKinds() []string {
	return []string{problemIdentity, problemOrdinal, problemZones, problemDisk}
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
		texts = append(texts, n.problems[kind].text)
	}
	return texts
}

// checkProblems looks for what only the whole ring shows. The caller holds the mutex.
func (n *Node) checkProblems(now time.Time) {
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
