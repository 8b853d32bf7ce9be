package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
)

// ClientConfig is what operators set of TLS to other processes.
type ClientConfig struct {
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
func (c *ClientConfig) RegisterFlags(prefix string, f *flag.FlagSet) {
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
func (c *ClientConfig) Validate() error {
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("cert_file and key_file go together")
	}
	if !c.Enabled && (c.CertFile != "" || c.CAFile != "" || c.ServerName != "") {
		return errors.New("files or a name are given, but enabled is false")
	}
	return nil
}

// ServerConfig is what operators set of TLS of a listener.
type ServerConfig struct {
	// CertFile and KeyFile are the server's; without them it speaks no TLS.
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// ClientCAFile has authorities; with it only clients whose certificate one of them signed are let in.
	ClientCAFile string `yaml:"client_ca_file"`
}

// RegisterFlags registers the settings behind prefix.
func (c *ServerConfig) RegisterFlags(prefix string, f *flag.FlagSet) {
	f.StringVar(&c.CertFile, prefix+".cert-file", "",
		"Certificate of the server, in PEM; with it the listener speaks TLS only. Files of TLS are read again when they change.")
	f.StringVar(&c.KeyFile, prefix+".key-file", "", "Key of the certificate, in PEM.")
	f.StringVar(&c.ClientCAFile, prefix+".client-ca-file", "",
		"Certificates of authorities, in PEM. With it only clients that present a certificate of one of them are let in.")
}

// Enabled reports whether the listener speaks TLS.
func (c *ServerConfig) Enabled() bool { return c.CertFile != "" }

// Validate says what cannot be.
func (c *ServerConfig) Validate() error {
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("cert_file and key_file go together")
	}
	if c.CertFile == "" && c.ClientCAFile != "" {
		return errors.New("client_ca_file needs cert_file and key_file")
	}
	return nil
}

// OpenClient reads the files of a client's TLS. An error says what is wrong with them.
func OpenClient(c ClientConfig, log *slog.Logger) (*Files, error) {
	return open([]string{c.CertFile, c.KeyFile, c.CAFile}, log, c.build)
}

// OpenServer reads the files of a listener's TLS. An error says what is wrong with them.
func OpenServer(c ServerConfig, log *slog.Logger) (*Files, error) {
	return open([]string{c.CertFile, c.KeyFile, c.ClientCAFile}, log, c.build)
}

// CheckFiles reads the files, as a start does, and says what is wrong with them.
func (c *ClientConfig) CheckFiles() error {
	if !c.Enabled {
		return nil
	}
	_, err := c.build()
	return err
}

// CheckFiles reads the files, as a start does, and says what is wrong with them.
func (c *ServerConfig) CheckFiles() error {
	if !c.Enabled() {
		return nil
	}
	_, err := c.build()
	return err
}

// Read reads the files once, for a client that does not live long enough to see them change.
func (c *ClientConfig) Read() (*tls.Config, error) { return c.build() }

func (c *ClientConfig) build() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if err := addPair(config, c.CertFile, c.KeyFile); err != nil {
		return nil, err
	}
	var err error
	if config.RootCAs, err = authorities(c.CAFile); err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	return config, nil
}

func (c *ServerConfig) build() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if err := addPair(config, c.CertFile, c.KeyFile); err != nil {
		return nil, err
	}
	pool, err := authorities(c.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("client_ca_file: %w", err)
	}
	if pool != nil {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, pool
	}
	return config, nil
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
