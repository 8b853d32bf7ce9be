package peerconn

import (
	"errors"
	"flag"
)

// TLSConfig names the files of TLS between processes. For a client all are optional but Enabled; a server needs CertFile
// and KeyFile, and with CAFile it accepts only clients whose certificate that authority signed.
type TLSConfig struct {
	Enabled    bool   `yaml:"enabled"`
	CertFile   string `yaml:"cert_file"`
	KeyFile    string `yaml:"key_file"`
	CAFile     string `yaml:"ca_file"`
	ServerName string `yaml:"server_name"`
}

// RegisterFlags registers the settings of a client behind prefix.
func (c *TLSConfig) RegisterFlags(prefix string, f *flag.FlagSet) {
	f.BoolVar(&c.Enabled, prefix+".enabled", false, "Speak TLS to other processes.")
	f.StringVar(&c.CertFile, prefix+".cert-file", "", "Certificate to present, in PEM. The file is read again when it changes.")
	f.StringVar(&c.KeyFile, prefix+".key-file", "", "Key of the certificate, in PEM.")
	f.StringVar(&c.CAFile, prefix+".ca-file", "",
		"Certificates of authorities to trust, in PEM. Empty: those of the system.")
	f.StringVar(&c.ServerName, prefix+".server-name", "",
		"Name that certificates of other processes must have. Empty: the host of their address.")
}

// Validate says what cannot be.
func (c *TLSConfig) Validate() error {
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("cert_file and key_file go together")
	}
	return nil
}
