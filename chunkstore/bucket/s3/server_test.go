package s3

import (
	"flag"
	"log/slog"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/internal/objectstore"
)

func TestMain(m *testing.M) {
	minio.DefaultRetryUnit = time.Millisecond // what the library waits after its only try
	goleak.VerifyTestMain(m)
}

// server is a real S3 server.
type server struct{ *objectstore.Server }

func startServer(t *testing.T, args ...string) *server {
	t.Helper()
	return &server{objectstore.Start(t, objectstore.Options{Args: args})}
}

// open returns a client of a new bucket, after the configuration was changed.
func (s *server) open(t *testing.T, change ...func(*Config)) *Bucket {
	t.Helper()
	cfg := s.config()
	cfg.BucketName = s.NewBucket(t)
	return openBucket(t, cfg, change...)
}

func (s *server) config() Config {
	cfg := defaults()
	cfg.Endpoint = s.Address()
	cfg.Region = objectstore.Region
	cfg.Insecure = true
	cfg.AccessKeyID, cfg.SecretAccessKey = objectstore.AccessKey, objectstore.SecretKey
	return cfg
}

func defaults() Config {
	var cfg Config
	cfg.RegisterFlags(flag.NewFlagSet("test", flag.PanicOnError))
	return cfg
}

func openBucket(t *testing.T, cfg Config, change ...func(*Config)) *Bucket {
	t.Helper()
	cfg.FirstPause = time.Millisecond
	for _, c := range change {
		c(&cfg)
	}
	b, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}
