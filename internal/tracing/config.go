package tracing

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"strings"

	"github.com/duramendb/duramen/internal/secret"
)

// Config holds what an operator may set.
type Config struct {
	// OTLPEndpoint is the collector's host:port for OTLP over gRPC; empty means no tracing.
	OTLPEndpoint string `yaml:"otlp_endpoint"`
	OTLPInsecure bool   `yaml:"otlp_insecure"`
	OTLPCAFile   string `yaml:"otlp_ca_file"`
	// OTLPHeaders goes with each export: name=value, separated by commas.
	OTLPHeaders secret.Text `yaml:"otlp_headers"`
	// SampleRatio is the share of requests without a traceparent that are traced, 0 to 1.
	SampleRatio float64 `yaml:"sample_ratio"`
	ServiceName string  `yaml:"service_name"`
}

// defaultSampleRatio keeps the traces of a busy node readable: of 100 write requests a second it takes one.
const defaultSampleRatio = 0.01

// RegisterFlags registers the flags and sets the defaults.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	f.StringVar(&c.OTLPEndpoint, "tracing.otlp-endpoint", "",
		"Collector that takes traces by OTLP over gRPC, host:port such as localhost:4317. Empty: nothing is traced.")
	f.BoolVar(&c.OTLPInsecure, "tracing.otlp-insecure", false, "Speak to the collector without TLS.")
	f.StringVar(&c.OTLPCAFile, "tracing.otlp-ca-file", "",
		"PEM file of the authorities that may have signed the collector's certificate; empty means the system's.")
	f.Var(&c.OTLPHeaders, "tracing.otlp-headers",
		"Headers for the collector, name=value separated by commas, as for an API key. Other users of the machine can see "+
			"flags; prefer the configuration file or the environment.")
	f.Float64Var(&c.SampleRatio, "tracing.sample-ratio", defaultSampleRatio,
		"Share of requests that are traced, from 0 to 1. A request whose header traceparent says whether it is traced "+
			"keeps to that. What runs by itself, cuts and uploads, is traced always.")
	f.StringVar(&c.ServiceName, "tracing.service-name", "duramen", "Name of the service in traces.")
}

// Validate returns all faults.
func (c *Config) Validate() error {
	var errs []error
	if c.OTLPEndpoint != "" {
		if host, port, err := net.SplitHostPort(c.OTLPEndpoint); err != nil || host == "" || port == "" {
			errs = append(errs, fmt.Errorf("otlp_endpoint is %q; use host:port without a scheme, such as localhost:4317",
				c.OTLPEndpoint))
		}
	}
	if c.OTLPInsecure && c.OTLPCAFile != "" {
		errs = append(errs, fmt.Errorf("otlp_ca_file is %q, but otlp_insecure turns TLS off; set one of them", c.OTLPCAFile))
	}
	if _, err := parseHeaders(string(c.OTLPHeaders)); err != nil {
		errs = append(errs, fmt.Errorf("otlp_headers: %w", err))
	}
	if !(c.SampleRatio >= 0 && c.SampleRatio <= 1) { // not a number is neither
		errs = append(errs, fmt.Errorf("sample_ratio is %g; use 0 to 1, such as %g", c.SampleRatio, defaultSampleRatio))
	}
	if c.ServiceName == "" {
		errs = append(errs, errors.New("service_name is empty; use a name such as duramen"))
	}
	return errors.Join(errs...)
}

// parseHeaders reads name=value pairs. Its errors show no value.
func parseHeaders(s string) (map[string]string, error) {
	headers := map[string]string{}
	if s == "" {
		return headers, nil
	}
	for i, pair := range strings.Split(s, ",") {
		name, value, ok := strings.Cut(pair, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || !isHeaderName(name) || strings.ContainsFunc(value, notPrintable) {
			return nil, fmt.Errorf("entry %d is no header; use name=value, separated by commas", i+1)
		}
		headers[strings.ToLower(name)] = value // gRPC's metadata are in lower case
	}
	return headers, nil
}

// isHeaderName reports whether gRPC takes name as the key of a text header.
func isHeaderName(name string) bool {
	ok := name != "" && !strings.HasSuffix(strings.ToLower(name), "-bin") && !strings.HasPrefix(name, ":")
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.')
	}
	return ok
}

func notPrintable(r rune) bool { return r < ' ' || r > '~' }
