package ring

import (
	"flag"
	"fmt"
	"time"
)

const (
	// defaultReplicationFactor is that of a cluster; a process alone keeps one copy and has no ring.
	defaultReplicationFactor = 3
	maxReplicationFactor     = 9
	defaultHeartbeatTimeout  = 30 * time.Second
	// defaultOutOfOrderWindow is the default of the limit of the same name.
	defaultOutOfOrderWindow = 3 * time.Hour
)

// Config holds what an operator may set about the ring.
type Config struct {
	// ReplicationFactor is the number of copies of each series. 0 is 3 in a cluster and 1 alone.
	ReplicationFactor int `yaml:"replication_factor"`
	// HeartbeatTimeout is the silence after which a member is taken for dead. Writes are not held up by that: they
	// notice a dead member by its connection.
	HeartbeatTimeout time.Duration `yaml:"heartbeat_timeout"`
	// OutOfOrderWindow is the largest such window of any tenant: how much older than another sample one may be that is
	// accepted after it. It is wiring; 0 is 3 h.
	OutOfOrderWindow time.Duration `yaml:"-"`
}

// RegisterFlags registers the settings and their defaults.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	f.IntVar(&c.ReplicationFactor, "ring.replication-factor", 0,
		"Number of ingesters, each in another zone, that keep a copy of each series. 0 is 3 in a cluster and 1 in a "+
			"process alone.")
	f.DurationVar(&c.HeartbeatTimeout, "ring.heartbeat-timeout", defaultHeartbeatTimeout,
		"Silence after which a member counts as dead: it gets no work that another one can do. An ingester keeps its "+
			"place, because it may hold samples that are nowhere else.")
}

// Validate reports what is wrong with the settings.
func (c *Config) Validate() error {
	if c.ReplicationFactor < 0 || c.ReplicationFactor > maxReplicationFactor {
		return fmt.Errorf("ring.replication-factor is %d, must be 0 to %d", c.ReplicationFactor, maxReplicationFactor)
	}
	if c.HeartbeatTimeout < time.Second {
		return fmt.Errorf("ring.heartbeat-timeout is %s, must be 1s or more", c.HeartbeatTimeout)
	}
	return nil
}

// withDefaults fills what was left out.
func (c Config) withDefaults() Config {
	if c.ReplicationFactor <= 0 {
		c.ReplicationFactor = defaultReplicationFactor
	}
	if c.HeartbeatTimeout <= 0 {
		c.HeartbeatTimeout = defaultHeartbeatTimeout
	}
	if c.OutOfOrderWindow <= 0 {
		c.OutOfOrderWindow = defaultOutOfOrderWindow
	}
	return c
}
