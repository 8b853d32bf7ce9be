package gossip

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"

	"github.com/duramendb/duramen/internal/tlsfiles"
	"github.com/duramendb/duramen/ring/gossip/tlsgossip"
)

// TLSConfig is what operators set of TLS on the gossip port. Members are servers and clients of one another, so that there is
// one certificate for both, and it is always demanded of both.
type TLSConfig struct {
	Enabled    bool   `yaml:"enabled"`
	CertFile   string `yaml:"cert_file"`
	KeyFile    string `yaml:"key_file"`
	CAFile     string `yaml:"ca_file"`
	ServerName string `yaml:"server_name"`
}

// RegisterFlags registers the settings behind prefix.
func (c *TLSConfig) RegisterFlags(prefix string, f *flag.FlagSet) {
	f.BoolVar(&c.Enabled, prefix+".enabled", false,
		"Gossip over TLS, by TCP alone, with members only that show a certificate. All members have it or none: those with "+
			"and those without do not see one another.")
	f.StringVar(&c.CertFile, prefix+".cert-file", "",
		"Certificate of this member, in PEM, good for servers and for clients. Files of TLS are read again when they change.")
	f.StringVar(&c.KeyFile, prefix+".key-file", "", "Key of the certificate, in PEM.")
	f.StringVar(&c.CAFile, prefix+".ca-file", "",
		"Certificates of the authorities, in PEM, one of which has to have signed the certificate of each other member.")
	f.StringVar(&c.ServerName, prefix+".server-name", "",
		"Name that the certificates of all members must have, also of those that connect to this one. Empty: the host of their "+
			"address, which is an IP address as a rule, and any for those that connect.")
}

// Validate says what cannot be.
func (c *TLSConfig) Validate() error {
	switch {
	case !c.Enabled && (c.CertFile != "" || c.KeyFile != "" || c.CAFile != "" || c.ServerName != ""):
		return errors.New("files or a name are given, but enabled is false")
	case c.Enabled && (c.CertFile == "" || c.KeyFile == "" || c.CAFile == ""):
		return errors.New("cert_file, key_file and ca_file are all needed: members show one another their certificates")
	default:
		return nil
	}
}

func (c *TLSConfig) server() tlsfiles.ServerConfig {
	return tlsfiles.ServerConfig{CertFile: c.CertFile, KeyFile: c.KeyFile, ClientCAFile: c.CAFile}
}

func (c *TLSConfig) client() tlsfiles.ClientConfig {
	return tlsfiles.ClientConfig{Enabled: c.Enabled, CertFile: c.CertFile, KeyFile: c.KeyFile, CAFile: c.CAFile}
}

// CheckFiles reads the files, as a start does, and says what is wrong with them.
func (c *TLSConfig) CheckFiles() error {
	client := c.client()
	return client.CheckFiles()
}

func (c *TLSConfig) open(log *slog.Logger) (files tlsgossip.Files, err error) {
	files.Name = c.ServerName
	if files.Client, err = tlsfiles.OpenClient(c.client(), log); err != nil {
		return files, err
	}
	files.Server, err = tlsfiles.OpenServer(c.server(), log)
	return files, err
}

// listenTLS opens TCP on an IP address.
func (n *Node) listenTLS(bind string, port int, adapter *logAdapter) (*network, int, error) {
	files, err := n.cfg.TLS.open(n.log)
	if err != nil {
		return nil, 0, fmt.Errorf("memberlist.tls.%w", err)
	}
	t, err := tlsgossip.Listen(net.ParseIP(bind), port, files, adapter)
	if err != nil {
		return nil, 0, err
	}
	return &network{NodeAwareTransport: t, dial: t.Dial}, t.Port(), nil
}

var _ tlsgossip.Reports = (*logAdapter)(nil)

// Refused implements tlsgossip.Reports.
func (a *logAdapter) Refused(inbound bool, address string, err error) {
	a.metrics.dropped.WithLabelValues(reasonTLS).Inc()
	kind := "tls to"
	if inbound {
		kind = "tls from"
	}
	if a.ration.allow(kind) {
		a.log.Warn("connection refused for its TLS", "address", address, "inbound", inbound, "err", err)
	}
}

// Malformed implements tlsgossip.Reports.
func (a *logAdapter) Malformed(address string, err error) {
	a.metrics.dropped.WithLabelValues(reasonMalformed).Inc()
	if a.ration.allow(reasonMalformed) {
		a.log.Warn("what a member sent is no gossip", "address", address, "err", err)
	}
}

// Unsent implements tlsgossip.Reports.
func (a *logAdapter) Unsent(address string, packets int) {
	a.metrics.dropped.WithLabelValues(reasonUnsent).Add(float64(packets))
	a.log.Debug("packets were not sent", "address", address, "packets", packets)
}

// Overloaded implements tlsgossip.Reports.
func (a *logAdapter) Overloaded(address string) {
	a.metrics.dropped.WithLabelValues(reasonOverload).Inc()
	if a.ration.allow(reasonOverload) {
		a.log.Warn("too many connections whose handshake goes on", "address", address)
	}
}
