package backend

import (
	"flag"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/duramendb/duramen/internal/strictyaml"
)

// ParseURL reads where a bucket is from one word, for tools: the path of a directory, or file:///path, or
//
//	s3://bucket/?endpoint=minio:9000&region=us-east-1&insecure=true&lookup=path
//
// The parameters are the names of the settings of S3 in the configuration file, single_writer, and root_tenant, which
// file:// has, too. Secrets are refused,
// because others can see what a command line says: they come from the environment (AWS_ACCESS_KEY_ID and so on) or from a
// credentials_file. What is not given is at its default. The result is valid.
func ParseURL(text string) (Config, error) {
	var cfg Config
	cfg.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
	scheme, _, isURL := strings.Cut(text, "://")
	switch {
	case text == "":
		return cfg, fmt.Errorf("a bucket is a directory or s3://name/?endpoint=host, and not empty")
	case !isURL:
		cfg.Filesystem.Directory = text
		return cfg, nil
	case scheme != S3 && scheme != "file":
		return cfg, fmt.Errorf("bucket %q: scheme %q is not known; use a path or s3://", text, scheme)
	}
	u, err := url.Parse(text)
	if err != nil {
		return cfg, fmt.Errorf("bucket: %w", err)
	}
	if u.User != nil || u.Fragment != "" {
		return cfg, fmt.Errorf("bucket %s: neither a user nor a fragment has a meaning; keys come from the environment or "+
			"from credentials_file", u.Redacted())
	}
	if scheme == "file" {
		query, err := url.ParseQuery(u.RawQuery)
		cfg.RootTenant = query.Get("root_tenant")
		query.Del("root_tenant")
		if err != nil || u.Host != "" || u.Path == "" || len(query) > 0 {
			return cfg, fmt.Errorf("bucket %q: write file:///path or file:///path?root_tenant=name", text)
		}
		cfg.Filesystem.Directory = u.Path
		if err := cfg.Validate(); err != nil {
			return cfg, fmt.Errorf("bucket %q: %w", text, err)
		}
		return cfg, nil
	}
	cfg.Backend, cfg.S3.BucketName = S3, u.Host
	if u.Port() != "" || strings.Trim(u.Path, "/") != "" {
		return cfg, fmt.Errorf("bucket %q: write s3://name/?endpoint=host:port; a path below the bucket is not supported", text)
	}
	if err := cfg.applyQuery(u.RawQuery); err != nil {
		return cfg, fmt.Errorf("bucket %q: %w", u.Scheme+"://"+u.Host, err)
	}
	if err := cfg.Validate(); err != nil {
		return cfg, fmt.Errorf("bucket %q: %w", u.Scheme+"://"+u.Host, err)
	}
	return cfg, nil
}

// applyQuery sets what the parameters of an s3:// URL name.
func (c *Config) applyQuery(query string) error {
	parameters, err := url.ParseQuery(query)
	if err != nil {
		return err
	}
	settings := &yaml.Node{Kind: yaml.MappingNode}
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		switch name {
		case "bucket_name":
			return fmt.Errorf("bucket_name: the bucket is what stands behind s3://")
		case "access_key_id", "secret_access_key", "session_token":
			return fmt.Errorf("%s: keys come from the environment or from credentials_file, for others can see a command line", name)
		}
		for _, value := range parameters[name] {
			entry := []*yaml.Node{{Kind: yaml.ScalarNode, Value: name}, {Kind: yaml.ScalarNode, Value: value}}
			if name == "single_writer" || name == "root_tenant" {
				if err := strictyaml.DecodeNode(&yaml.Node{Kind: yaml.MappingNode, Content: entry}, "", c); err != nil {
					return err
				}
				continue
			}
			settings.Content = append(settings.Content, entry...)
		}
	}
	return strictyaml.DecodeNode(settings, "", &c.S3)
}
