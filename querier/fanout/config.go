package fanout

import (
	"flag"
	"fmt"
	"time"
)

// Config holds what an operator may set.
type Config struct {
	// QuorumWait is how long a query waits for ingesters to come back when too few zones answer.
	QuorumWait time.Duration `yaml:"quorum_wait"`
}

// RegisterFlags adds the settings to f with their defaults.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	f.DurationVar(&c.QuorumWait, "querier.quorum-wait", 2*time.Second,
		"How long a query waits for ingesters to come back when those of too few zones answer, as in a restart of several. "+
			"After that it gets 503 that names them.")
}

// Validate says which setting is wrong and what would be right.
func (c *Config) Validate() error {
	if c.QuorumWait < 0 {
		return fmt.Errorf("querier.quorum_wait is %s: set a duration such as 2s, or 0 not to wait", c.QuorumWait)
	}
	return nil
}

const (
	// minHedge and maxHedge bound how long an answer is waited for before another zone is asked as well. In between it is
	// hedgeFactor times what the member needs nearly always: enough not to ask three zones for every pause of a collector,
	// little beside the patience of who looks at a dashboard.
	minHedge, maxHedge = 50 * time.Millisecond, 500 * time.Millisecond
	hedgeFactor        = 3
	// planTimeout is how long an ingester may need to plan: it may have to open a tenant that was closed.
	planTimeout = 10 * time.Second
	// suspectTimeout is planTimeout for one that was slow or away before.
	suspectTimeout = 2 * time.Second
	// probeTimeout is how long a member that has an answer to give may be silent before it is away: it is asked for
	// something small meanwhile.
	probeTimeout = 2 * time.Second
	// probeEvery is how often a member is probed that takes long, and one that was away.
	probeEvery = time.Second
	// firstPause and maxPause bound the pauses between attempts while a quorum is waited for.
	firstPause, maxPause = 25 * time.Millisecond, 200 * time.Millisecond
)
