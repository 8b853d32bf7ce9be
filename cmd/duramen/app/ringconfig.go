package app

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"strings"

	"github.com/duramendb/duramen/ring"
)

// RingConfig is about this process' place among the members of a cluster.
type RingConfig struct {
	InstanceID   string `yaml:"instance_id"`
	InstanceZone string `yaml:"instance_zone"`
	InstanceAddr string `yaml:"instance_addr"`

	ring.Config `yaml:",inline"`
}

// defaultReplicationFactor is that of a cluster: one machine may be away without anybody noticing.
const defaultReplicationFactor = 3

// RegisterFlags registers the flags and sets the defaults.
func (c *RingConfig) RegisterFlags(f *flag.FlagSet) {
	f.StringVar(&c.InstanceID, "ring.instance-id", "",
		"Name of this member of the cluster, the same after a restart and no other's. Empty means the machine's name, with the "+
			"port of server.grpc_listen_address behind it when that is not 9095. Of an ingester whose name ends in a dash and a "+
			"number, as ingester-2, that is its ordinal in its zone; ingesters of equal ordinals hold equal series.")
	f.StringVar(&c.InstanceZone, "ring.instance-zone", "",
		"Where this member stands, such as an availability zone or a rack. The copies of a series are in different zones. "+
			"Either all ingesters have one, of at least as many as there are copies, or none has; then the ordinal decides.")
	f.StringVar(&c.InstanceAddr, "ring.instance-addr", "",
		"Host, or host:port, at which the other members reach this one's gRPC server. Empty means the host of "+
			"server.grpc_listen_address or, when that is none, the one that is advertised for gossip.")
	c.Config.RegisterFlags(f)
}

// Validate returns all faults.
func (c *RingConfig) Validate() error {
	var errs []error
	for _, name := range []struct{ field, value string }{
		{"instance_id", c.InstanceID}, {"instance_zone", c.InstanceZone},
	} {
		if strings.ContainsAny(name.value, " \t\r\n\"'/\\") || len(name.value) > 200 {
			errs = append(errs, fmt.Errorf("%s is %q; use at most 200 characters without spaces, quotes and slashes",
				name.field, name.value))
		}
	}
	if c.InstanceAddr != "" {
		if err := validateInstanceAddr(c.InstanceAddr); err != nil {
			errs = append(errs, fmt.Errorf("instance_addr is %q: %w; use a host, or host:port, that other members reach",
				c.InstanceAddr, err))
		}
	}
	return errors.Join(append(errs, c.Config.Validate())...)
}

func validateInstanceAddr(address string) error {
	host := address
	if h, _, err := net.SplitHostPort(address); err == nil {
		if err := validateAddress(address); err != nil {
			return err
		}
		host = h
	} else if strings.Contains(address, ":") && net.ParseIP(address) == nil {
		return err
	}
	if host == "" {
		return errors.New("the host is missing")
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return errors.New("it stands for every address of a machine")
	}
	return nil
}

// ringConfig is what a ring of this process is computed with.
func (c *Config) ringConfig() ring.Config {
	rc := c.Ring.Config
	rc.ReplicationFactor = c.replicationFactor()
	rc.OutOfOrderWindow = c.Limits.OutOfOrderWindow
	return rc
}

// replicationFactor is how many copies of a sample are written.
func (c *Config) replicationFactor() int {
	switch {
	case c.Ring.ReplicationFactor > 0:
		return c.Ring.ReplicationFactor
	case c.clustered():
		return defaultReplicationFactor
	default:
		return 1
	}
}
