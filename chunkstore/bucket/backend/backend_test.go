package backend

import (
	"bytes"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
)

func defaults() Config {
	var cfg Config
	cfg.RegisterFlags(flag.NewFlagSet("test", flag.PanicOnError))
	return cfg
}

func open(t *testing.T, cfg Config, dir string, log *bytes.Buffer) *Store {
	t.Helper()
	s, err := New(cfg, dir, slog.New(slog.NewTextHandler(log, nil)), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestValidateLooksAtTheChosenStoreOnly(t *testing.T) {
	cfg := defaults()
	cfg.S3.Lookup, cfg.S3.SSE = "x", "y"
	require.NoError(t, cfg.Validate())

	cfg.Backend = S3
	err := cfg.Validate()
	for _, want := range []string{
		"s3.bucket_name is empty", "s3.endpoint is empty", `s3.lookup is "x"`, `s3.sse is "y"`,
	} {
		require.ErrorContains(t, err, want)
	}
	_, err = New(cfg, t.TempDir(), slog.New(slog.DiscardHandler), nil)
	require.ErrorContains(t, err, "s3.bucket_name is empty")

	cfg.Backend = "gcs"
	require.EqualError(t, cfg.Validate(), `backend is "gcs"; use "filesystem" or "s3"`)
}

func TestFilesystem(t *testing.T) {
	var log bytes.Buffer
	cfg, dir, other := defaults(), filepath.Join(t.TempDir(), "default"), filepath.Join(t.TempDir(), "other")
	s := open(t, cfg, dir, &log)
	require.NoError(t, s.PutIfAbsent(t.Context(), "t/key", []byte("value")))
	require.ErrorIs(t, s.PutIfAbsent(t.Context(), "t/key", nil), bucket.ErrExists)
	require.FileExists(t, filepath.Join(dir, "t", "key"))
	require.Empty(t, log.String())

	cfg.Filesystem.Directory, cfg.S3.BucketName = other, "metrics"
	moved := open(t, cfg, dir, &log)
	require.Empty(t, buckettest.Keys(t, moved, "", true))
	require.Contains(t, log.String(), "the S3 settings have no effect")

	require.NoError(t, s.Check())
	require.NoError(t, os.RemoveAll(dir))
	require.Error(t, s.Check())
}

// TestBlocksAtTheTop: as a Thanos keeps them.
func TestBlocksAtTheTop(t *testing.T) {
	var log bytes.Buffer
	cfg, dir := defaults(), t.TempDir()
	cfg.RootTenant = "acme"
	s := open(t, cfg, dir, &log)
	buckettest.Put(t, s, "acme/01JB2X0000000000000000000A/index", "x")
	require.FileExists(t, filepath.Join(dir, "01JB2X0000000000000000000A", "index"))
	require.Equal(t, []string{"acme/"}, buckettest.Keys(t, s, "", false))
	require.NoError(t, s.PutIfAbsent(t.Context(), "acme/duramen/manifest/1", nil))
	require.FileExists(t, filepath.Join(dir, "acme", "duramen", "manifest", "1"))

	for tenant, want := range map[string]string{
		"a/b": "root_tenant: tenant ID", "01JB2X0000000000000000000A": "root_tenant 01JB2X0000000000000000000A is a ULID",
	} {
		cfg.RootTenant = tenant
		require.ErrorContains(t, cfg.Validate(), want)
	}
}

// TestAServerThatIsAway: opening asks nothing, and an operation says where it went.
func TestAServerThatIsAway(t *testing.T) {
	var log bytes.Buffer
	cfg := defaults()
	cfg.Backend, cfg.S3.BucketName, cfg.S3.Endpoint, cfg.S3.Insecure = S3, "metrics", "127.0.0.1:1", true
	cfg.S3.Region, cfg.S3.AccessKeyID, cfg.S3.SecretAccessKey = "x", "somebody", "something"
	s := open(t, cfg, t.TempDir(), &log)
	require.Equal(t, "S3 bucket metrics at http://127.0.0.1:1", s.Name())
	require.NoError(t, s.Check())
	require.ErrorContains(t, s.Probe(t.Context()), "probe S3 bucket metrics at http://127.0.0.1:1")
	require.Empty(t, log.String())
}
