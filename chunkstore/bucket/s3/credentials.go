package s3

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// newCredentials returns what signs our requests. Nothing is read or asked before the first request.
func newCredentials(cfg Config, transport http.RoundTripper) *credentials.Credentials {
	if cfg.AccessKeyID != "" {
		return credentials.NewStaticV4(cfg.AccessKeyID, string(cfg.SecretAccessKey), string(cfg.SessionToken))
	}
	sources := []source{
		{"environment", &credentials.EnvAWS{}},
		{"shared credentials file", &credentials.FileAWSCredentials{Filename: cfg.CredentialsFile, Profile: cfg.Profile}},
	}
	if cfg.IAM {
		client := &http.Client{Transport: transport}
		sources = append(sources, source{"iam", &credentials.IAM{Client: client, Region: cfg.Region}})
	}
	return credentials.New(&chain{sources: sources})
}

type source struct {
	name     string
	provider credentials.Provider
}

// chain is a credentials.Provider that takes the first source which has a key. The library's own chain goes on without
// credentials when no source has any, and the server's "access denied" then says nothing about the cause.
type chain struct {
	sources []source
	current credentials.Provider
}

// Retrieve implements credentials.Provider.
func (c *chain) Retrieve() (credentials.Value, error) { return c.RetrieveWithCredContext(nil) }

// RetrieveWithCredContext implements credentials.Provider.
func (c *chain) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	c.current = nil
	errs := []error{ErrNoCredentials}
	for _, s := range c.sources {
		v, err := s.provider.RetrieveWithCredContext(cc)
		if err == nil && (v.AccessKeyID == "" || v.SecretAccessKey == "") {
			err = errors.New("no access key")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
			continue
		}
		c.current = s.provider
		return v, nil
	}
	return credentials.Value{}, errors.Join(errs...)
}

// IsExpired implements credentials.Provider.
func (c *chain) IsExpired() bool { return c.current == nil || c.current.IsExpired() }
