package identity

import (
	"context"
	"time"
)

const (
	// tellEvery is how often the cluster is told and heard, which asks nothing of the bucket.
	tellEvery = time.Second
	// lookEvery is how often a bucket is looked at that is as it should be, or takes no identity: 1,440 requests a day.
	lookEvery = time.Minute
	// lookAgain is how often one is looked at that is refused or could not be looked at.
	lookAgain = 5 * time.Second
)

// Run looks at the bucket now and then, and tells the cluster, until ctx ends.
func (g *Guard) Run(ctx context.Context) error {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	var looked time.Time
	for {
		if now := g.now(); g.due(now.Sub(looked)) {
			looked = now
			_ = g.Verify(ctx) // noted, and told to who asks for something
		}
		g.announce()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// due reports whether it is time for a look, when the last one of Run was some time ago. Who has not used the bucket yet and
// gives it no identity leaves it alone.
func (g *Guard) due(ago time.Duration) bool {
	s := g.state.Load()
	if s == nil && !g.cfg.Create && g.failedSince(time.Time{}) == nil {
		return false
	}
	if s == nil || s.err != nil || g.failedSince(time.Time{}) != nil {
		return ago >= lookAgain
	}
	if word, _ := g.clusterSays(); word != "" && word != s.id {
		return true // it is refused, or was created by somebody meanwhile
	}
	return ago >= lookEvery
}

func (g *Guard) announce() {
	if g.cfg.Announce != nil {
		g.cfg.Announce(g.tells())
	}
}

// tells returns the identity that the cluster is told: who remembers one says so also while its bucket is refused or was not
// looked at, so that whoever begins meanwhile does not take an empty bucket for the right one. One that was only met in this
// life gives way to what the cluster says.
func (g *Guard) tells() string {
	if g.cfg.Remember == nil {
		id, refused := g.State()
		if refused != nil {
			return ""
		}
		return id
	}
	id := *g.remembered.Load()
	if word, _ := g.clusterSays(); g.fresh && word != "" && word != id {
		return ""
	}
	return id
}
