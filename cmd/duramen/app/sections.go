package app

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/duramendb/duramen/internal/listflag"
	"github.com/duramendb/duramen/internal/tlsfiles"
	"github.com/duramendb/duramen/querier"
	"github.com/duramendb/duramen/querier/fanout"
)

// ServerConfig is about the listeners.
type ServerConfig struct {
	HTTPListenAddress string        `yaml:"http_listen_address"`
	GRPCListenAddress string        `yaml:"grpc_listen_address"`
	ShutdownDelay     time.Duration `yaml:"shutdown_delay"`
	ShutdownTimeout   time.Duration `yaml:"shutdown_timeout"`

	WebConfigFile string `yaml:"web_config_file"`

	HTTPTLS tlsfiles.ServerConfig `yaml:"http_tls"`
	GRPCTLS tlsfiles.ServerConfig `yaml:"grpc_tls"`
}

// RegisterFlags registers the flags and sets the defaults.
func (c *ServerConfig) RegisterFlags(f *flag.FlagSet) {
	f.StringVar(&c.HTTPListenAddress, "server.http-listen-address", ":9009",
		"Address of the HTTP server: writes, queries, metrics, health and this process' pages.")
	f.StringVar(&c.GRPCListenAddress, "server.grpc-listen-address", ":9095",
		"Address on which ingesters and store-gateways answer other processes. There are no passwords: keep it inside your "+
			"network, or demand certificates (server.grpc_tls.client_ca_file). A process that plays no such role does not listen.")
	f.DurationVar(&c.ShutdownDelay, "server.shutdown-delay", 0,
		"How long after SIGTERM requests are still served while /ready says 503 and each answer asks for its connection to be "+
			"closed. Behind a load balancer set it to more than the time in which that notices, such as 10s; then a restart "+
			"fails no request.")
	f.DurationVar(&c.ShutdownTimeout, "server.shutdown-timeout", 30*time.Second,
		"How long requests that are running may go on after SIGTERM before their connections are closed.")
	f.StringVar(&c.WebConfigFile, "server.web-config-file", "",
		"File that says how the HTTP server is protected, as Prometheus' --web.config.file: TLS, passwords, headers, a limit of "+
			"requests. It goes for every path, /ready and /metrics included. In place of server.http_tls.")
	c.HTTPTLS.RegisterFlags("server.http-tls", f)
	c.GRPCTLS.RegisterFlags("server.grpc-tls", f)
}

// Validate returns all faults.
func (c *ServerConfig) Validate() error {
	var errs []error
	for _, a := range []struct{ field, value, example string }{
		{"http_listen_address", c.HTTPListenAddress, ":9009"},
		{"grpc_listen_address", c.GRPCListenAddress, ":9095"},
	} {
		if err := validateAddress(a.value); err != nil {
			errs = append(errs, fmt.Errorf("%s is %q: %w; use host:port or :port, such as %s",
				a.field, a.value, err, a.example))
		}
	}
	if c.HTTPListenAddress == c.GRPCListenAddress && !strings.HasSuffix(c.HTTPListenAddress, ":0") {
		errs = append(errs, fmt.Errorf("grpc_listen_address is %q, as is http_listen_address; use another port, such as "+
			":9095", c.GRPCListenAddress))
	}
	if c.ShutdownDelay < 0 {
		errs = append(errs, fmt.Errorf("shutdown_delay is %v; use 0 or a positive duration such as 10s", c.ShutdownDelay))
	}
	if c.ShutdownTimeout <= 0 {
		errs = append(errs, fmt.Errorf("shutdown_timeout is %v; use a positive duration such as 30s", c.ShutdownTimeout))
	}
	if c.WebConfigFile != "" && (c.HTTPTLS != tlsfiles.ServerConfig{}) {
		errs = append(errs, fmt.Errorf("web_config_file is %q and http_tls is set as well; use one: the file's tls_server_config has "+
			"a place for each setting of http_tls", c.WebConfigFile))
	}
	errs = append(errs, inSection("http_tls", c.HTTPTLS.Validate()), inSection("grpc_tls", c.GRPCTLS.Validate()))
	return errors.Join(errs...)
}

func validateAddress(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		var e *net.AddrError
		if errors.As(err, &e) {
			return errors.New(e.Err)
		}
		return err
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return errors.New("the port is not a number from 0 to 65535")
	}
	return nil
}

// QuerierConfig is the querier's own settings, and where it reads blocks.
type QuerierConfig struct {
	querier.Config `yaml:",inline"`

	Fanout fanout.Config `yaml:",inline"`

	StoreGatewayAddresses []string `yaml:"store_gateway_addresses"`
}

// RegisterFlags registers the flags and sets the defaults.
func (c *QuerierConfig) RegisterFlags(f *flag.FlagSet) {
	c.Config.RegisterFlags(f)
	c.Fanout.RegisterFlags(f)
	f.Var(listflag.New(&c.StoreGatewayAddresses), "querier.store-gateway-addresses",
		"Store-gateways that read blocks for this process, host:port, separated by commas or given several times. The list is "+
			"fixed; a name stands for one member, whatever addresses it has. Empty means that it reads them itself or, in a "+
			"cluster and without the role store-gateway, that those of the ring do.")
}

// Validate returns all faults.
func (c *QuerierConfig) Validate() error {
	errs := []error{c.Config.Validate(), c.Fanout.Validate()}
	for i, address := range c.StoreGatewayAddresses {
		err := validateAddress(address)
		switch {
		case err == nil && strings.HasPrefix(address, ":"):
			err = errors.New("the host is missing")
		case err == nil && slices.Contains(c.StoreGatewayAddresses[:i], address):
			err = errors.New("it is there twice")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("store_gateway_addresses has %q: %w; use host:port, such as gateway-1:9095",
				address, err))
		}
	}
	return errors.Join(errs...)
}

// TenancyConfig is about how a request names its tenant.
type TenancyConfig struct {
	HeaderRequired autoBool `yaml:"header_required"`
}

// RegisterFlags registers the flags and sets the defaults.
func (c *TenancyConfig) RegisterFlags(f *flag.FlagSet) {
	f.Var(&c.HeaderRequired, "tenancy.header-required",
		"Answer 401 to requests without the header X-Scope-OrgID. Otherwise they belong to the tenant \"anonymous\". auto: "+
			"true in a cluster, false on a single node.")
}

// LogConfig is about the log on standard error.
type LogConfig struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// RegisterFlags registers the flags and sets the defaults.
func (c *LogConfig) RegisterFlags(f *flag.FlagSet) {
	f.StringVar(&c.Level, "log.level", "info",
		"Lowest level that is logged: debug, info, warn or error. POST /log-level changes it while running.")
	f.StringVar(&c.Format, "log.format", formatLogfmt, "Format of the log: logfmt or json.")
}

// Validate returns all faults.
func (c *LogConfig) Validate() error {
	var errs []error
	if _, err := parseLevel(c.Level); err != nil {
		errs = append(errs, fmt.Errorf("level is %w", err))
	}
	if c.Format != formatLogfmt && c.Format != formatJSON {
		errs = append(errs, fmt.Errorf("format is %q; use %s or %s", c.Format, formatLogfmt, formatJSON))
	}
	return errors.Join(errs...)
}
