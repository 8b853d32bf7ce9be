package replicate

import (
	"flag"
	"fmt"
	"time"
)

// Config holds what an operator may set.
type Config struct {
	// TableBytes bounds what is kept of known series, all tenants together.
	TableBytes int64 `yaml:"table_bytes"`
	// MaxInflightBytes bounds the sections that wait for an answer, those of answered requests included.
	MaxInflightBytes int64 `yaml:"max_inflight_bytes"`
	// MaxLateBytes bounds the sections that replicas have not answered though their requests are: one slow replica.
	MaxLateBytes int64 `yaml:"max_late_bytes"`
	// PushTimeout is how long a request waits for a quorum, LateTimeout how long a replica may take to answer.
	PushTimeout time.Duration `yaml:"push_timeout"`
	LateTimeout time.Duration `yaml:"late_timeout"`
}

// RegisterFlags adds the flags to f, with their defaults.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	f.Int64Var(&c.TableBytes, "replicate.table-bytes", 256<<20,
		"Memory in bytes for what a distributor of a cluster keeps of known series, all tenants together: about 100 bytes "+
			"a series and its labels. Over it, the tenant with most gives up series unseen for longest.")
	f.Int64Var(&c.MaxInflightBytes, "replicate.max-inflight-bytes", 512<<20,
		"Memory in bytes for what is on its way to ingesters. Above it writes are answered with 503.")
	f.Int64Var(&c.MaxLateBytes, "replicate.max-late-bytes", 64<<20,
		"Memory in bytes for what slow ingesters have not answered yet although the requests are. Above it the slowest get "+
			"nothing until they have caught up, and quorums are made by the others.")
	f.DurationVar(&c.PushTimeout, "replicate.push-timeout", 2*time.Second,
		"How long a write waits for a quorum of ingesters before it is answered with 503; it is repeated meanwhile to those "+
			"that cannot be reached.")
	f.DurationVar(&c.LateTimeout, "replicate.late-timeout", 10*time.Second,
		"How long an ingester may take to answer, after the request was answered by a quorum of others.")
}

// Validate says which field is wrong, its value and what would be right.
func (c *Config) Validate() error {
	for _, b := range []struct {
		name string
		n    int64
	}{{"table_bytes", c.TableBytes}, {"max_late_bytes", c.MaxLateBytes}} {
		if b.n < 0 {
			return fmt.Errorf("%s is %d; use 0 or more", b.name, b.n)
		}
	}
	if c.MaxInflightBytes <= 0 {
		return fmt.Errorf("max_inflight_bytes is %d; use more than 0: with none every write is refused", c.MaxInflightBytes)
	}
	if c.PushTimeout <= 0 {
		return fmt.Errorf("push_timeout is %s; use more than 0", c.PushTimeout)
	}
	if c.LateTimeout < c.PushTimeout {
		return fmt.Errorf("late_timeout is %s; use at least push_timeout, %s", c.LateTimeout, c.PushTimeout)
	}
	return nil
}
