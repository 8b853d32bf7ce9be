package tlsfiles

import (
	"crypto/tls"
	"log/slog"
)

// Listener returns the configuration of an HTTP listener, each handshake of which goes by the files of then; nil when c names
// none.
func Listener(c ServerConfig, log *slog.Logger) (*tls.Config, error) {
	if !c.Enabled() {
		return nil, nil
	}
	f, err := OpenServer(c, log)
	if err != nil {
		return nil, err
	}
	protocols := []string{"h2", "http/1.1"}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			config := f.Current().Clone()
			config.NextProtos = protocols
			return config, nil
		},
	}, nil
}
