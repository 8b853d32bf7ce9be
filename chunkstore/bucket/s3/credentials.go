package s3

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// renewInterval is how long after a refusal of our key the sources are asked again: often enough for whoever waits for a
// rotated key to work, and no burden for a metadata service that serves a whole machine.
const renewInterval = 10 * time.Second

// keys are the credentials in use.
type keys struct {
	*credentials.Credentials

	every   time.Duration // renewInterval, less in tests
	renewed atomic.Int64  // when they were last given up, in Unix milliseconds
}

func newKeys(cfg Config, transport http.RoundTripper) *keys {
	return &keys{Credentials: newCredentials(cfg, transport), every: renewInterval}
}

// refused gives the credentials up when err says that the server does not accept the key, so that the next request asks
// the sources anew: a file may have been written again, a role's key revoked before its time.
func (k *keys) refused(err error) {
	answer, ok := answerOf(err)
	if !ok {
		return
	}
	switch answer.Code {
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "InvalidToken",
		"TokenRefreshRequired", unknownUser:
	default:
		return
	}
	now, last := time.Now().UnixMilli(), k.renewed.Load()
	if now-last >= k.every.Milliseconds() && k.renewed.CompareAndSwap(last, now) {
		k.Expire()
	}
}

// newCredentials returns what signs our requests. Nothing is read or asked before the first request.
func newCredentials(cfg Config, transport http.RoundTripper) *credentials.Credentials {
	if cfg.AccessKeyID != "" {
		return credentials.NewStaticV4(cfg.AccessKeyID, string(cfg.SecretAccessKey), string(cfg.SessionToken))
	}
	sources := []source{
		{"environment", &credentials.EnvAWS{}},
		{"shared credentials file", &fileKeys{
			file: credentials.FileAWSCredentials{Filename: cfg.CredentialsFile, Profile: cfg.Profile}, now: time.Now,
		}},
	}
	if cfg.IAM {
		client := &http.Client{Transport: transport}
		sources = append(sources, source{"iam", &credentials.IAM{Client: client, Region: cfg.Region}})
	}
	return credentials.New(&chain{sources: sources})
}

// rereadInterval is how long keys of a file that tells no expiry are used before it is read again. A rotation that leaves
// the old key valid for longer goes unnoticed by requests.
const rereadInterval = time.Minute

// fileKeys is a credentials.Provider of the shared credentials file. The library's own has keys without an expiry expire
// at once, and reads the file, or runs the process that it names, for every request.
type fileKeys struct {
	file   credentials.FileAWSCredentials
	now    func() time.Time
	ageing bool      // the keys tell no expiry
	read   time.Time // when the file was read
}

// Retrieve implements credentials.Provider.
func (f *fileKeys) Retrieve() (credentials.Value, error) { return f.RetrieveWithCredContext(nil) }

// RetrieveWithCredContext implements credentials.Provider.
func (f *fileKeys) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	v, err := f.file.RetrieveWithCredContext(cc)
	f.ageing, f.read = err == nil && v.Expiration.IsZero(), f.now()
	return v, err
}

// IsExpired implements credentials.Provider.
func (f *fileKeys) IsExpired() bool {
	if f.ageing {
		return f.now().Sub(f.read) >= rereadInterval
	}
	return f.file.IsExpired()
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
