package gossip

import (
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/duramendb/duramen/internal/listflag"
	"github.com/duramendb/duramen/internal/secret"
)

// Config holds what an operator may set. Its section in the configuration is memberlist.
type Config struct {
	Join              []string      `yaml:"join"`
	BindAddress       string        `yaml:"bind_address"`
	AdvertiseAddress  string        `yaml:"advertise_address"`
	ClusterLabel      string        `yaml:"cluster_label"`
	EncryptionKeys    secret.Text   `yaml:"encryption_keys"`
	EncryptionKeyFile string        `yaml:"encryption_key_file"`
	GossipInterval    time.Duration `yaml:"gossip_interval"`
	HeartbeatInterval time.Duration `yaml:"heartbeat_interval"`
	RejoinInterval    time.Duration `yaml:"rejoin_interval"`
	MaxPacketBytes    int           `yaml:"max_packet_bytes"`
	TLS               TLSConfig     `yaml:"tls"`
}

const (
	defaultPort = "7946"

	// minPacket leaves room for one entry with long names; maxPacket is what fits into a UDP packet.
	minPacket = 1024
	maxPacket = 60000
)

// RegisterFlags registers the flags and sets the defaults.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	f.Var(listflag.New(&c.Join), "memberlist.join",
		"Members of the cluster to join, host:port or host, separated by commas or given several times. A name is resolved "+
			"anew at each try, and all its addresses are tried. Naming this member itself does no harm. A process with "+
			"this is a member of a cluster; without it, and with the replication factor not above 1, it is a single node.")
	f.StringVar(&c.BindAddress, "memberlist.bind-address", ":"+defaultPort,
		"Address on which a member of a cluster gossips, by TCP and, without TLS, by UDP: IP:port, or :port for all addresses. "+
			"A single node does not gossip.")
	f.StringVar(&c.AdvertiseAddress, "memberlist.advertise-address", "",
		"IP, name or IP:port at which other members reach this one. Empty means the address it is bound to; with all "+
			"addresses, the first private one, or loopback when there is no other.")
	f.StringVar(&c.ClusterLabel, "memberlist.cluster-label", "duramen",
		"Name that all members of a cluster share. Those with another name are kept out and counted, so that two clusters "+
			"that meet by a wrong address do not become one. It is no password.")
	f.Var(&c.EncryptionKeys, "memberlist.encryption-keys",
		"Keys with which all gossip is encrypted: 16, 24 or 32 random bytes in base64, separated by commas. The first one "+
			"encrypts, each one decrypts. To change the key append the new one everywhere, then put it first everywhere, "+
			"then drop the old one. Empty means no encryption.")
	f.StringVar(&c.EncryptionKeyFile, "memberlist.encryption-key-file", "",
		"File with the encryption keys, one a line, in place of memberlist.encryption_keys. It is read at the start.")
	f.DurationVar(&c.GossipInterval, "memberlist.gossip-interval", 200*time.Millisecond,
		"How often news is sent to a few members. Shorter spreads it sooner and takes more packets.")
	f.DurationVar(&c.HeartbeatInterval, "memberlist.heartbeat-interval", 5*time.Second,
		"How often a member says that it is alive. With more than 50 members it is stretched to a tenth of a second for "+
			"each, and at most to a third of ring.heartbeat_timeout.")
	f.DurationVar(&c.RejoinInterval, "memberlist.rejoin-interval", 30*time.Second,
		"How often members of memberlist.join that are not seen are tried again, for ever. While nobody at all has been "+
			"reached it is a second.")
	f.IntVar(&c.MaxPacketBytes, "memberlist.max-packet-bytes", 1400,
		"Size of a gossip packet, at most. Larger ones carry more and may be split or lost by the network.")
	c.TLS.RegisterFlags("memberlist.tls", f)
}

// Validate returns all faults.
func (c *Config) Validate() error {
	var errs []error
	for _, address := range c.Join {
		if host, _, err := splitAddress(address); err != nil || host == "" {
			errs = append(errs, fmt.Errorf("join has %q; use host:port, such as duramen-0:%s", address, defaultPort))
		}
	}
	if host, _, err := splitAddress(c.BindAddress); err != nil || host != "" && net.ParseIP(host) == nil {
		errs = append(errs, fmt.Errorf("bind_address is %q; use IP:port or :port, such as :%s", c.BindAddress, defaultPort))
	}
	if _, _, err := splitAddress(c.AdvertiseAddress); c.AdvertiseAddress != "" && err != nil {
		errs = append(errs, fmt.Errorf("advertise_address is %q; use an IP address or a name, with :port or without",
			c.AdvertiseAddress))
	}
	if len(c.ClusterLabel) > memberlist.LabelMaxSize {
		errs = append(errs, fmt.Errorf("cluster_label has %d bytes; use at most %d", len(c.ClusterLabel),
			memberlist.LabelMaxSize))
	}
	if c.EncryptionKeys != "" && c.EncryptionKeyFile != "" {
		errs = append(errs, errors.New("encryption_keys and encryption_key_file are both set; use one"))
	}
	if _, err := parseKeys(string(c.EncryptionKeys)); err != nil {
		errs = append(errs, fmt.Errorf("encryption_keys: %w", err))
	}
	for _, d := range []struct {
		field string
		value time.Duration
		least time.Duration
	}{
		{"gossip_interval", c.GossipInterval, time.Millisecond},
		{"heartbeat_interval", c.HeartbeatInterval, 10 * time.Millisecond},
		{"rejoin_interval", c.RejoinInterval, 10 * time.Millisecond},
	} {
		if d.value < d.least {
			errs = append(errs, fmt.Errorf("%s is %v; use at least %v", d.field, d.value, d.least))
		}
	}
	if c.MaxPacketBytes < minPacket || c.MaxPacketBytes > maxPacket {
		errs = append(errs, fmt.Errorf("max_packet_bytes is %d; use %d to %d", c.MaxPacketBytes, minPacket, maxPacket))
	}
	if err := c.TLS.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("tls: %w", err))
	}
	return errors.Join(errs...)
}

// splitAddress splits host:port, host, or :port. The port is the default one when it is missing.
func splitAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		// No port, or no address at all.
		host, text = strings.Trim(address, "[]"), defaultPort
		if host == "" || strings.Contains(host, ":") && net.ParseIP(host) == nil {
			return "", 0, fmt.Errorf("address %q is not host:port", address)
		}
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q is not a number from 0 to 65535", text)
	}
	return host, int(n), nil
}

// CheckFiles reads the files that the settings name, as a start does, and says what is wrong with them.
func (c *Config) CheckFiles() error {
	_, err := c.keys()
	if tlsErr := c.TLS.CheckFiles(); tlsErr != nil {
		return errors.Join(err, fmt.Errorf("tls.%w", tlsErr))
	}
	return err
}

// keys returns the encryption keys, the one that encrypts first; none when gossip is in the clear.
func (c *Config) keys() ([][]byte, error) {
	if c.EncryptionKeyFile == "" {
		return parseKeys(string(c.EncryptionKeys))
	}
	data, err := os.ReadFile(c.EncryptionKeyFile)
	if err != nil {
		return nil, fmt.Errorf("encryption_key_file: %w", err)
	}
	keys, err := parseKeys(string(data))
	if err == nil && len(keys) == 0 {
		err = errors.New("it has no key")
	}
	if err != nil {
		return nil, fmt.Errorf("encryption_key_file %s: %w", c.EncryptionKeyFile, err)
	}
	return keys, nil
}

// parseKeys reads keys in base64 that commas or white space separate. Its errors say which key, but not what it is.
func parseKeys(text string) ([][]byte, error) {
	var keys [][]byte
	for i, part := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) }) {
		key, err := base64.StdEncoding.DecodeString(part)
		if err != nil {
			return nil, fmt.Errorf("key %d is not base64", i+1)
		}
		if err := memberlist.ValidateKey(key); err != nil {
			return nil, fmt.Errorf("key %d has %d bytes; use 16, 24 or 32", i+1, len(key))
		}
		keys = append(keys, key)
	}
	return keys, nil
}
