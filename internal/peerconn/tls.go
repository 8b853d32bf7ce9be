package peerconn

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
)

// TLSConfig is what operators set of TLS to other processes.
type TLSConfig struct {
	Enabled bool `yaml:"enabled"`
	// CertFile and KeyFile are presented to servers that ask for them.
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// CAFile has the authorities to trust; empty: those of the system.
	CAFile string `yaml:"ca_file"`
	// ServerName is what the certificates of servers must name; empty: the host of the address.
	ServerName string `yaml:"server_name"`
}

// RegisterFlags registers the settings behind prefix.
func (c *TLSConfig) RegisterFlags(prefix string, f *flag.FlagSet) {
	f.BoolVar(&c.Enabled, prefix+".enabled", false, "Speak TLS to other processes.")
	f.StringVar(&c.CertFile, prefix+".cert-file", "",
		"Certificate to present to other processes, in PEM. Files of TLS are read again when they change.")
	f.StringVar(&c.KeyFile, prefix+".key-file", "", "Key of the certificate, in PEM.")
	f.StringVar(&c.CAFile, prefix+".ca-file", "",
		"Certificates of the authorities to trust, in PEM. Empty: those of the system.")
	f.StringVar(&c.ServerName, prefix+".server-name", "",
		"Name that certificates of other processes must have. Empty: the host of their address.")
}

// Validate says what cannot be.
func (c *TLSConfig) Validate() error {
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("cert_file and key_file go together")
	}
	if !c.Enabled && (c.CertFile != "" || c.CAFile != "" || c.ServerName != "") {
		return errors.New("files or a name are given, but enabled is false")
	}
	return nil
}

// ServerTLSConfig is what operators set of TLS of a listener.
type ServerTLSConfig struct {
	// CertFile and KeyFile are the server's; without them it speaks no TLS.
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// ClientCAFile has authorities; with it only clients whose certificate one of them signed are let in.
	ClientCAFile string `yaml:"client_ca_file"`
}

// RegisterFlags registers the settings behind prefix.
func (c *ServerTLSConfig) RegisterFlags(prefix string, f *flag.FlagSet) {
	f.StringVar(&c.CertFile, prefix+".cert-file", "",
		"Certificate of the server, in PEM; with it the listener speaks TLS only. Files of TLS are read again when they change.")
	f.StringVar(&c.KeyFile, prefix+".key-file", "", "Key of the certificate, in PEM.")
	f.StringVar(&c.ClientCAFile, prefix+".client-ca-file", "",
		"Certificates of authorities, in PEM. With it only clients that present a certificate of one of them are let in.")
}

// Enabled reports whether the listener speaks TLS.
func (c *ServerTLSConfig) Enabled() bool { return c.CertFile != "" }

// Validate says what cannot be.
func (c *ServerTLSConfig) Validate() error {
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("cert_file and key_file go together")
	}
	if c.CertFile == "" && c.ClientCAFile != "" {
		return errors.New("client_ca_file needs cert_file and key_file")
	}
	return nil
}

// clientTLS returns the configuration of a client.
func clientTLS(c TLSConfig) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if err := addPair(config, c.CertFile, c.KeyFile); err != nil {
		return nil, err
	}
	var err error
	config.RootCAs, err = authorities(c.CAFile)
	return config, err
}

// serverTLS returns the configuration of a server.
func serverTLS(c ServerTLSConfig) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if err := addPair(config, c.CertFile, c.KeyFile); err != nil {
		return nil, err
	}
	pool, err := authorities(c.ClientCAFile)
	if pool != nil {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, pool
	}
	return config, err
}

func addPair(config *tls.Config, cert, key string) error {
	if cert == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("cert_file %s, key_file %s: %w", cert, key, err)
	}
	config.Certificates = []tls.Certificate{pair}
	return nil
}

// authorities returns those of a file; none for an empty path.
func authorities(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s has no certificate in PEM", path)
	}
	return pool, nil
}
