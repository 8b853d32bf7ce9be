package ingestrpc

import (
	"flag"
	"fmt"
	"time"
)

// aliveEvery is how often a server that has nothing to send yet says that it is at work. A client that waits longer than
// several of these waits for a process that has stopped, or for a host that is silent.
const aliveEvery = time.Second

// ReadClientConfig is what operators set of reads from ingesters.
type ReadClientConfig struct {
	// SilenceTimeout is how long an ingester that owes an answer may send nothing before it counts as away.
	SilenceTimeout time.Duration `yaml:"silence_timeout"`
}

// RegisterFlags registers the settings with their defaults.
func (c *ReadClientConfig) RegisterFlags(f *flag.FlagSet) {
	f.DurationVar(&c.SilenceTimeout, "ingester-client.read.silence-timeout", 5*time.Second,
		"How long an ingester that owes a query an answer may send nothing before the query goes on without it. One that is "+
			"at work says so every second. Between 2s and 5m.")
}

// Validate says what cannot be.
func (c *ReadClientConfig) Validate() error {
	if c.SilenceTimeout < 2*aliveEvery || c.SilenceTimeout > 5*time.Minute {
		return fmt.Errorf("ingester_client.read.silence_timeout: %s is not between 2s and 5m", c.SilenceTimeout)
	}
	return nil
}

// ReadServerConfig is what operators set of reads that arrive.
type ReadServerConfig struct {
	// MaxConcurrent bounds the reads that are answered at a time. A tenant gets three quarters of them at most.
	MaxConcurrent int `yaml:"max_concurrent"`
	// StallTimeout is how long a querier may leave what was sent unread before the ingester ends the answer: while it goes
	// on, nothing is cut from the tenant's memory.
	StallTimeout time.Duration `yaml:"stall_timeout"`
}

// RegisterFlags registers the settings with their defaults.
func (c *ReadServerConfig) RegisterFlags(f *flag.FlagSet) {
	f.IntVar(&c.MaxConcurrent, "ingester-server.read.max-concurrent", 512,
		"Reads from other processes that are answered at a time; further ones are refused with 429. One tenant gets three "+
			"quarters of them at most. Each takes up to half a MiB.")
	f.DurationVar(&c.StallTimeout, "ingester-server.read.stall-timeout", time.Minute,
		"How long a querier may leave what was sent to it unread before the answer is ended with an error. An answer that "+
			"goes on holds back the tenant's cut.")
}

// Validate says what cannot be.
func (c *ReadServerConfig) Validate() error {
	switch {
	case c.MaxConcurrent < 1:
		return fmt.Errorf("ingester_server.read.max_concurrent: %d is less than 1", c.MaxConcurrent)
	case c.StallTimeout <= 0:
		return fmt.Errorf("ingester_server.read.stall_timeout: %s is not above zero", c.StallTimeout)
	}
	return nil
}
