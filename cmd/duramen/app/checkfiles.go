package app

import (
	"errors"
	"fmt"

	"github.com/prometheus/exporter-toolkit/web"

	"github.com/duramendb/duramen/chunkstore/bucket/backend"
)

// checkFiles reads the files of TLS and of keys that the settings name, as a start does, and returns all faults: the setting,
// the file and what is wrong with it.
func (c *Config) checkFiles() error {
	errs := []error{
		c.Server.checkWebConfig(),
		inSection("server.http_tls", c.Server.HTTPTLS.CheckFiles()),
		inSection("server.grpc_tls", c.Server.GRPCTLS.CheckFiles()),
		inSection("grpc_client.tls", c.GRPCClient.TLS.CheckFiles()),
		inSection("memberlist", c.Memberlist.CheckFiles()),
		inSection("tracing", c.Tracing.CheckFiles()),
	}
	if c.Bucket.Backend == backend.S3 {
		errs = append(errs, inSection("bucket.s3", c.Bucket.S3.CheckFiles()))
	}
	return errors.Join(errs...)
}

// checkWebConfig reads the file that protects the HTTP server, with the certificates that it names.
func (c *ServerConfig) checkWebConfig() error {
	if err := web.Validate(c.WebConfigFile); err != nil {
		return fmt.Errorf("server.web_config_file %s: %w", c.WebConfigFile, err)
	}
	return nil
}
