package s3

import (
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/duramendb/duramen/internal/secret"
)

const (
	// minPartSize and maxPartSize are the protocol's bounds of every part but the last.
	minPartSize = 5 << 20
	maxPartSize = 5 << 30
	// maxParts is the protocol's bound of one upload.
	maxParts = 10_000
)

// The values of Config.Lookup and Config.SSE.
const (
	lookupAuto    = "auto"
	lookupPath    = "path"
	lookupVirtual = "virtual"

	sseNone = "none"
	sseS3   = "SSE-S3"
	sseKMS  = "SSE-KMS"
)

// Config says where the bucket is, who we are and how hard we lean on it.
type Config struct {
	BucketName string `yaml:"bucket_name"`
	Endpoint   string `yaml:"endpoint"`
	Region     string `yaml:"region"`
	Lookup     string `yaml:"lookup"`
	Insecure   bool   `yaml:"insecure"`

	AccessKeyID     string      `yaml:"access_key_id"`
	SecretAccessKey secret.Text `yaml:"secret_access_key"`
	SessionToken    secret.Text `yaml:"session_token"`
	CredentialsFile string      `yaml:"credentials_file"`
	Profile         string      `yaml:"profile"`
	IAM             bool        `yaml:"iam"`

	TLSCAFile             string `yaml:"tls_ca_file"`
	TLSCertFile           string `yaml:"tls_cert_file"`
	TLSKeyFile            string `yaml:"tls_key_file"`
	TLSInsecureSkipVerify bool   `yaml:"tls_insecure_skip_verify"`

	SSE         string `yaml:"sse"`
	SSEKMSKeyID string `yaml:"sse_kms_key_id"`

	PartSizeBytes      int64         `yaml:"part_size_bytes"`
	UploadBufferBytes  int64         `yaml:"upload_buffer_bytes"`
	MaxConnections     int           `yaml:"max_connections"`
	MaxIdleConnections int           `yaml:"max_idle_connections"`
	DialTimeout        time.Duration `yaml:"dial_timeout"`
	StallTimeout       time.Duration `yaml:"stall_timeout"`

	// FirstPause is the mean of the first pause between two tries, which doubles; zero means 100 ms. It is for tests.
	FirstPause time.Duration `yaml:"-"`
}

// RegisterFlags registers the flags and sets c to the defaults.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	c.registerPlace(f)
	c.registerCredentials(f)
	c.registerTransfer(f)
}

func (c *Config) registerPlace(f *flag.FlagSet) {
	f.StringVar(&c.BucketName, "bucket.s3.bucket-name", "", "Name of the S3 bucket. It has to exist.")
	f.StringVar(&c.Endpoint, "bucket.s3.endpoint", "",
		"Host and port of the S3 server without a scheme, such as s3.eu-central-1.amazonaws.com or minio:9000.")
	f.StringVar(&c.Region, "bucket.s3.region", "",
		"Region of the bucket. Empty means that the endpoint names it or, when it does not, that the server is asked "+
			"once, which takes s3:GetBucketLocation.")
	f.StringVar(&c.Lookup, "bucket.s3.lookup", lookupAuto,
		"Where requests carry the bucket's name: path (https://host/bucket/key), virtual (https://bucket.host/key) or "+
			"auto, which is virtual for AWS and path for others.")
	f.BoolVar(&c.Insecure, "bucket.s3.insecure", false, "Speak HTTP in place of HTTPS.")
	f.StringVar(&c.TLSCAFile, "bucket.s3.tls-ca-file", "",
		"PEM file of certificates to trust besides the system's.")
	f.StringVar(&c.TLSCertFile, "bucket.s3.tls-cert-file", "", "PEM file of a client certificate to present.")
	f.StringVar(&c.TLSKeyFile, "bucket.s3.tls-key-file", "", "PEM file of the client certificate's key.")
	f.BoolVar(&c.TLSInsecureSkipVerify, "bucket.s3.tls-insecure-skip-verify", false,
		"Accept any certificate of the server. For experiments: whoever is on the way can read and change everything.")
}

func (c *Config) registerCredentials(f *flag.FlagSet) {
	f.StringVar(&c.AccessKeyID, "bucket.s3.access-key-id", "",
		"Access key. Empty means the first that is found of: the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "+
			"AWS_SESSION_TOKEN), the shared credentials file, and with -bucket.s3.iam the machine's role.")
	f.Var(&c.SecretAccessKey, "bucket.s3.secret-access-key",
		"Secret of the access key. Other users of the machine can see flags; prefer the configuration file or the "+
			"environment.")
	f.Var(&c.SessionToken, "bucket.s3.session-token", "Session token of a temporary access key.")
	f.StringVar(&c.CredentialsFile, "bucket.s3.credentials-file", "",
		"Shared credentials file. Empty means AWS_SHARED_CREDENTIALS_FILE or ~/.aws/credentials.")
	f.StringVar(&c.Profile, "bucket.s3.profile", "",
		"Profile in the shared credentials file. Empty means AWS_PROFILE or default.")
	f.BoolVar(&c.IAM, "bucket.s3.iam", false,
		"Ask the platform for credentials when nothing else has any: web identity token, ECS, EKS or EC2 instance role.")
	f.StringVar(&c.SSE, "bucket.s3.sse", sseNone,
		"Encryption that the server is told to apply: none (the bucket's own default holds), SSE-S3 or SSE-KMS.")
	f.StringVar(&c.SSEKMSKeyID, "bucket.s3.sse-kms-key-id", "", "Key for SSE-KMS. Empty means the account's default key.")
}

func (c *Config) registerTransfer(f *flag.FlagSet) {
	f.Int64Var(&c.PartSizeBytes, "bucket.s3.part-size-bytes", 16<<20,
		"Objects up to this size are sent in one request, larger ones in parts of it, at least 5 MiB. A part that is "+
			"lost is sent again, so smaller parts suit bad networks.")
	f.Int64Var(&c.UploadBufferBytes, "bucket.s3.upload-buffer-bytes", 64<<20,
		"Memory for parts that are on their way, of all uploads together; divided by the part size it is the number of "+
			"parts that are sent at the same time.")
	f.IntVar(&c.MaxConnections, "bucket.s3.max-connections", 256,
		"Connections to the server, 0 for no limit. A request beyond it waits for another to end.")
	f.IntVar(&c.MaxIdleConnections, "bucket.s3.max-idle-connections", 64, "Connections kept open for the next request.")
	f.DurationVar(&c.DialTimeout, "bucket.s3.dial-timeout", 10*time.Second,
		"Time to connect, and again as much for the TLS handshake.")
	f.DurationVar(&c.StallTimeout, "bucket.s3.stall-timeout", time.Minute,
		"Time without a byte in either direction after which a connection is given up. It bounds the wait for an answer, "+
			"not a long transfer that moves.")
}

// Validate returns an error for each setting that cannot work, joined: the field, the value and what would be right.
func (c *Config) Validate() error {
	var errs []error
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	refuse(c.BucketName == "", "bucket_name is empty; name the bucket")
	refuse(strings.Contains(c.BucketName, "/"), "bucket_name is %q; use a name without slashes", c.BucketName)
	refuse(c.Endpoint == "", "endpoint is empty; use host or host:port")
	refuse(strings.ContainsAny(c.Endpoint, "/?# "),
		"endpoint is %q; use host or host:port without a scheme or path, and insecure for http", c.Endpoint)
	refuse(c.Lookup != lookupAuto && c.Lookup != lookupPath && c.Lookup != lookupVirtual,
		"lookup is %q; use auto, path or virtual", c.Lookup)
	refuse((c.AccessKeyID == "") != (c.SecretAccessKey == ""),
		"only one of access_key_id and secret_access_key is set; set both or neither")
	refuse(c.SessionToken != "" && c.AccessKeyID == "", "session_token is set without access_key_id; set both or neither")
	for _, s := range []struct {
		field string
		value secret.Text
	}{{"secret_access_key", c.SecretAccessKey}, {"session_token", c.SessionToken}} {
		refuse(s.value == secret.Masked, "%s is %q, which a printed configuration shows in place of a secret; set the secret",
			s.field, secret.Masked)
	}
	refuse((c.TLSCertFile == "") != (c.TLSKeyFile == ""),
		"only one of tls_cert_file and tls_key_file is set; set both or neither")
	refuse(c.Insecure && (c.TLSCAFile != "" || c.TLSCertFile != "" || c.TLSInsecureSkipVerify),
		"insecure is set and so are tls settings; remove one of them")
	refuse(c.SSE != sseNone && c.SSE != sseS3 && c.SSE != sseKMS, "sse is %q; use none, SSE-S3 or SSE-KMS", c.SSE)
	refuse(c.SSEKMSKeyID != "" && c.SSE != sseKMS, "sse_kms_key_id is set and sse is %q; use SSE-KMS", c.SSE)
	refuse(c.PartSizeBytes < minPartSize || c.PartSizeBytes > maxPartSize,
		"part_size_bytes is %d; use %d (5 MiB) to %d (5 GiB)", c.PartSizeBytes, minPartSize, int64(maxPartSize))
	refuse(c.UploadBufferBytes < c.PartSizeBytes,
		"upload_buffer_bytes is %d; use at least part_size_bytes (%d)", c.UploadBufferBytes, c.PartSizeBytes)
	refuse(c.MaxConnections < 0, "max_connections is %d; use a positive number, or 0 for no limit", c.MaxConnections)
	refuse(c.MaxIdleConnections < 1, "max_idle_connections is %d; use a positive number", c.MaxIdleConnections)
	refuse(c.DialTimeout <= 0, "dial_timeout is %s; use a positive duration", c.DialTimeout)
	refuse(c.StallTimeout <= 0, "stall_timeout is %s; use a positive duration", c.StallTimeout)
	return errors.Join(errs...)
}
