package peerconn

import (
	"flag"
	"fmt"
	"time"

	"github.com/duramendb/duramen/internal/tlsfiles"
)

// Config is what operators set of connections to other processes.
type Config struct {
	// SilenceTimeout is how long a peer that owes an answer may send nothing before it counts as failing.
	SilenceTimeout time.Duration         `yaml:"silence_timeout"`
	TLS            tlsfiles.ClientConfig `yaml:"tls"`
}

// RegisterFlags registers the settings with their defaults.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	f.DurationVar(&c.SilenceTimeout, "grpc-client.silence-timeout", 3*time.Second,
		"How long a peer that owes an answer may send nothing, not even to a probe, before it counts as failing. Between 100ms and 1m.")
	c.TLS.RegisterFlags("grpc-client.tls", f)
}

// Validate says what cannot be.
func (c *Config) Validate() error {
	if c.SilenceTimeout < 100*time.Millisecond || c.SilenceTimeout > time.Minute {
		return fmt.Errorf("grpc_client.silence_timeout: %s is not between 100ms and 1m", c.SilenceTimeout)
	}
	if err := c.TLS.Validate(); err != nil {
		return fmt.Errorf("grpc_client.tls: %w", err)
	}
	return nil
}
