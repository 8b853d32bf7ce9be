package s3

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/duramendb/duramen/internal/secret"
	"github.com/duramendb/duramen/internal/strictyaml"
)

func valid() Config {
	cfg := defaults()
	cfg.BucketName, cfg.Endpoint = "metrics", "127.0.0.1:1"
	return cfg
}

func TestValidate(t *testing.T) {
	cfg := valid()
	require.NoError(t, cfg.Validate())
	for want, change := range map[string]func(*Config){
		"bucket_name is empty":            func(c *Config) { c.BucketName = "" },
		`bucket_name is "a/b"`:            func(c *Config) { c.BucketName = "a/b" },
		"endpoint is empty":               func(c *Config) { c.Endpoint = "" },
		`endpoint is "https://x"`:         func(c *Config) { c.Endpoint = "https://x" },
		`lookup is "dns"`:                 func(c *Config) { c.Lookup = "dns" },
		"only one of access_key_id":       func(c *Config) { c.SecretAccessKey = "x" },
		"session_token is set":            func(c *Config) { c.SessionToken = "x" },
		`secret_access_key is "<secret>"`: func(c *Config) { c.AccessKeyID, c.SecretAccessKey = "x", secret.Masked },
		`session_token is "<secret>"`:     func(c *Config) { c.SessionToken = secret.Masked },
		"only one of tls_cert_file":       func(c *Config) { c.TLSCertFile = "x" },
		"insecure is set and so are tls":  func(c *Config) { c.Insecure, c.TLSCAFile = true, "x" },
		`sse is "AES256"`:                 func(c *Config) { c.SSE = "AES256" },
		"sse_kms_key_id is set":           func(c *Config) { c.SSEKMSKeyID = "x" },
		"part_size_bytes is 1":            func(c *Config) { c.PartSizeBytes = 1 },
		"upload_buffer_bytes is 10":       func(c *Config) { c.UploadBufferBytes = 10 },
		"max_connections is -1":           func(c *Config) { c.MaxConnections = -1 },
		"max_idle_connections is 0":       func(c *Config) { c.MaxIdleConnections = 0 },
		"dial_timeout is 0s":              func(c *Config) { c.DialTimeout = 0 },
		"stall_timeout is -1ns":           func(c *Config) { c.StallTimeout = -1 },
		"bucket_name is empty; name the ": func(c *Config) { *c = Config{} },
	} {
		cfg := valid()
		change(&cfg)
		require.ErrorContains(t, cfg.Validate(), want)
		_, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		require.ErrorContains(t, err, want)
	}
}

func TestConfigFromFlagsAndYAML(t *testing.T) {
	var cfg Config
	f := flag.NewFlagSet("test", flag.ContinueOnError)
	cfg.RegisterFlags(f)
	require.NoError(t, f.Parse([]string{
		"-bucket.s3.bucket-name=b", "-bucket.s3.secret-access-key=s1", "-bucket.s3.part-size-bytes=6000000",
	}))
	require.NoError(t, strictyaml.Decode([]byte("session_token: s2\nstall_timeout: 5s\n"), &cfg))
	require.Equal(t, "s1 s2", string(cfg.SecretAccessKey)+" "+string(cfg.SessionToken))
	require.Equal(t, "b 6000000 5s", fmt.Sprint(cfg.BucketName, " ", cfg.PartSizeBytes, " ", cfg.StallTimeout))
}

func TestSecretsAreMasked(t *testing.T) {
	cfg := valid()
	cfg.AccessKeyID, cfg.SecretAccessKey, cfg.SessionToken = "key", "hunter2", "hunter2"
	var out bytes.Buffer
	fmt.Fprintf(&out, "%v %+v %#v %s %q %x", cfg, cfg, cfg, cfg.SecretAccessKey, cfg.SecretAccessKey, cfg.SecretAccessKey)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("configuration", "secret", cfg.SecretAccessKey, "config", cfg)
	slog.New(slog.NewTextHandler(&out, nil)).Info("configuration", "secret", cfg.SecretAccessKey, "config", cfg)
	require.NoError(t, json.NewEncoder(&out).Encode(cfg))
	require.NoError(t, yaml.NewEncoder(&out).Encode(cfg))
	f := flag.NewFlagSet("test", flag.ContinueOnError)
	f.SetOutput(&out)
	cfg.RegisterFlags(f)
	f.PrintDefaults()
	require.NotContains(t, out.String(), "hunter2")
	require.NotContains(t, out.String(), fmt.Sprintf("%x", "hunter2"))
	require.Contains(t, out.String(), "secret_access_key: <secret>")
	require.Empty(t, secret.Text("").String(), "what is not set does not look as if it were")
}

func TestCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	require.NoError(t, os.WriteFile(file, []byte("[default]\naws_access_key_id=file\naws_secret_access_key=s\n"+
		"[other]\naws_access_key_id=other\naws_secret_access_key=s\n"), 0o600))
	clean := func(t *testing.T) {
		for _, name := range []string{
			"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SESSION_TOKEN",
			"AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE",
		} {
			t.Setenv(name, "")
		}
		t.Setenv("HOME", t.TempDir())
	}
	for _, c := range []struct {
		name, want string
		env        map[string]string
		change     func(*Config)
	}{
		{
			"static first", "static",
			map[string]string{"AWS_ACCESS_KEY_ID": "env", "AWS_SECRET_ACCESS_KEY": "s"},
			func(c *Config) { c.AccessKeyID, c.SecretAccessKey, c.CredentialsFile = "static", "s", file },
		},
		{
			"then the environment", "env",
			map[string]string{"AWS_ACCESS_KEY_ID": "env", "AWS_SECRET_ACCESS_KEY": "s"},
			func(c *Config) { c.CredentialsFile = file },
		},
		{"then a file", "file", nil, func(c *Config) { c.CredentialsFile = file }},
		{"a profile", "other", nil, func(c *Config) { c.CredentialsFile, c.Profile = file, "other" }},
		{"a file of the environment", "file", map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file}, func(*Config) {}},
		{
			"half a key does not count", "file",
			map[string]string{"AWS_ACCESS_KEY_ID": "env"},
			func(c *Config) { c.CredentialsFile = file },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			clean(t)
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			cfg := valid()
			c.change(&cfg)
			v, err := openBucket(t, cfg).client.GetCreds()
			require.NoError(t, err)
			require.Equal(t, c.want, v.AccessKeyID)
		})
	}
	t.Run("the platform's when asked for", func(t *testing.T) {
		clean(t)
		platform := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"AccessKeyId":"role","SecretAccessKey":"s","Token":"t","Expiration":"`+
				time.Now().Add(time.Hour).Format(time.RFC3339)+`","Code":"Success"}`)
		}))
		defer platform.Close()
		t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", platform.URL)
		cfg := valid()
		_, err := openBucket(t, cfg).client.GetCreds()
		require.ErrorIs(t, err, ErrNoCredentials)
		cfg.IAM = true
		v, err := openBucket(t, cfg).client.GetCreds()
		require.NoError(t, err)
		require.Equal(t, "role", v.AccessKeyID)
	})
	t.Run("none", func(t *testing.T) {
		clean(t)
		b := openBucket(t, valid())
		_, err := b.Stat(t.Context(), "t/object")
		require.ErrorIs(t, err, ErrNoCredentials)
		require.ErrorContains(t, err, b.Name())
	})
}
