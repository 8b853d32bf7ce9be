package ingestrpc

import (
	"flag"
	"fmt"
)

// ClientConfig is what operators set of calls to ingesters.
type ClientConfig struct {
	// MaxInflightBytes bounds the sections that a peer has not answered yet, for each peer.
	MaxInflightBytes int `yaml:"max_inflight_bytes"`
	// Read is of reads.
	Read ReadClientConfig `yaml:"read"`
}

// RegisterFlags registers the settings with their defaults.
func (c *ClientConfig) RegisterFlags(f *flag.FlagSet) {
	f.IntVar(&c.MaxInflightBytes, "ingester-client.max-inflight-bytes", 32<<20,
		"Bytes of encoded samples that one ingester may owe an answer for. Further ones are refused at once, as if it were away.")
	c.Read.RegisterFlags(f)
}

// Validate says what cannot be.
func (c *ClientConfig) Validate() error {
	if c.MaxInflightBytes < 1<<20 {
		return fmt.Errorf("ingester_client.max_inflight_bytes: %d is less than a MiB", c.MaxInflightBytes)
	}
	return c.Read.Validate()
}

// ServerConfig is what operators set of calls that arrive.
type ServerConfig struct {
	// BufferBytes bounds the sections that have arrived and wait for the ingester, of all streams together.
	BufferBytes int `yaml:"push_buffer_bytes"`
	// Read is of reads.
	Read ReadServerConfig `yaml:"read"`
}

// RegisterFlags registers the settings with their defaults.
func (c *ServerConfig) RegisterFlags(f *flag.FlagSet) {
	f.IntVar(&c.BufferBytes, "ingester-server.push-buffer-bytes", 64<<20,
		"Bytes of encoded samples that have arrived and wait to be stored. When they are more, nothing more is read.")
	c.Read.RegisterFlags(f)
}

// Validate says what cannot be.
func (c *ServerConfig) Validate() error {
	if c.BufferBytes < 1<<20 {
		return fmt.Errorf("ingester_server.push_buffer_bytes: %d is less than a MiB", c.BufferBytes)
	}
	return c.Read.Validate()
}
