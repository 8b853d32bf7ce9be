package s3

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/internal/objectstore"
)

func writeKeys(t *testing.T, file, id, key string) {
	t.Helper()
	text := "[default]\naws_access_key_id=" + id + "\naws_secret_access_key=" + key + "\n"
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
}

// TestKeysAreRotated: a key that the server no longer accepts is looked up again, whatever operation finds out.
func TestKeysAreRotated(t *testing.T) {
	s := startServer(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	file := filepath.Join(t.TempDir(), "credentials")
	b := s.open(t, func(c *Config) { c.AccessKeyID, c.SecretAccessKey, c.CredentialsFile = "", "", file })
	b.keys.every = 0
	operations := map[string]func() error{
		"get": func() error {
			_, err := b.Get(t.Context(), "t/none")
			return err
		},
		"list":          func() error { return b.List(t.Context(), "", true, func(bucket.Object) error { return nil }) },
		"put if absent": func() error { return b.PutIfAbsent(t.Context(), "t/"+t.Name(), []byte("x")) },
		"delete":        func() error { return b.Delete(t.Context(), "t/none") },
	}
	for name, op := range operations {
		for _, wrong := range [][2]string{{"nobody", "x"}, {objectstore.AccessKey, "wrong"}} {
			writeKeys(t, file, wrong[0], wrong[1])
			b.keys.Expire()
			require.ErrorIs(t, op(), ErrDenied, name)
			writeKeys(t, file, objectstore.AccessKey, objectstore.SecretKey)
			if err := op(); !errors.Is(err, bucket.ErrNotFound) && !errors.Is(err, bucket.ErrExists) {
				require.NoError(t, err, name)
			}
		}
	}
}

// TestSourcesAreNotAskedAllTheTime: a key that stays wrong is looked up again now and then only.
func TestSourcesAreNotAskedAllTheTime(t *testing.T) {
	s := startServer(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	file := filepath.Join(t.TempDir(), "credentials")
	writeKeys(t, file, "nobody", "x")
	b := s.open(t, func(c *Config) { c.AccessKeyID, c.SecretAccessKey, c.CredentialsFile = "", "", file })
	b.keys.every = time.Hour
	stat := func() error {
		_, err := b.Get(t.Context(), "t/none")
		return err
	}
	require.ErrorIs(t, stat(), ErrDenied) // gives the key up
	require.ErrorIs(t, stat(), ErrDenied) // reads it again
	writeKeys(t, file, objectstore.AccessKey, objectstore.SecretKey)
	require.ErrorIs(t, stat(), ErrDenied)
	b.keys.renewed.Add(-time.Hour.Milliseconds())
	require.ErrorIs(t, stat(), ErrDenied)
	require.ErrorIs(t, stat(), bucket.ErrNotFound)
}

// TestAFileOfKeysIsReadNowAndThen: neither for every request nor only once.
func TestAFileOfKeysIsReadNowAndThen(t *testing.T) {
	now := time.Now()
	file := filepath.Join(t.TempDir(), "credentials")
	keys := credentials.New(&fileKeys{
		file: credentials.FileAWSCredentials{Filename: file}, now: func() time.Time { return now },
	})
	requireKey := func(want string) {
		t.Helper()
		v, err := keys.GetWithContext(nil)
		require.NoError(t, err)
		require.Equal(t, want, v.AccessKeyID)
	}
	_, err := keys.GetWithContext(nil)
	require.Error(t, err)
	writeKeys(t, file, "old", "x")
	requireKey("old")
	writeKeys(t, file, "new", "x")
	now = now.Add(rereadInterval - 1)
	requireKey("old")
	now = now.Add(1)
	requireKey("new")

	until := now.Add(time.Hour).UTC().Format(time.RFC3339)
	require.NoError(t, os.WriteFile(file, []byte("[default]\ncredential_process = echo {\"Version\":1,\"AccessKeyId\":\"role\","+
		"\"SecretAccessKey\":\"x\",\"Expiration\":\""+until+"\"}\n"), 0o600))
	keys.Expire()
	requireKey("role")
	writeKeys(t, file, "next", "x")
	now = now.Add(2 * rereadInterval)
	requireKey("role") // which says itself how long it is good
}

// TestTheNamedHostIsAsked: what an operator names is what a firewall has to let through.
func TestTheNamedHostIsAsked(t *testing.T) {
	for endpoint, want := range map[string]string{
		"s3.eu-central-1.amazonaws.com":           "metrics.s3.eu-central-1.amazonaws.com:443",
		"s3.dualstack.eu-central-1.amazonaws.com": "metrics.s3.dualstack.eu-central-1.amazonaws.com:443",
		"s3-fips.us-gov-west-1.amazonaws.com":     "metrics.s3-fips.us-gov-west-1.amazonaws.com:443",
		"minio.example.net:9000":                  "minio.example.net:9000",
		"[::1]:9000":                              "[::1]:9000",
	} {
		cfg := valid()
		cfg.Endpoint, cfg.AccessKeyID, cfg.SecretAccessKey = endpoint, "x", "y"
		if endpoint == "minio.example.net:9000" || endpoint == "[::1]:9000" {
			cfg.Region = "us-east-1"
		}
		b := openBucket(t, cfg)
		var asked string
		b.transport.DialContext = func(_ context.Context, _, address string) (net.Conn, error) {
			asked = address
			return nil, errors.New("not connected")
		}
		_, err := b.Stat(t.Context(), "t/object")
		require.Error(t, err)
		require.Equal(t, want, asked, endpoint)
	}
}
