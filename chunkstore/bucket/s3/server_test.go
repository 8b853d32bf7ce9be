package s3

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	minio.DefaultRetryUnit = time.Millisecond // what the library waits after its only try
	goleak.VerifyTestMain(m)
}

const (
	accessKey = "duramen-test"
	secretKey = "duramen-test-secret"
	region    = "us-east-1"
)

// server is a real S3 server on a free port of the loopback interface. Its buckets are the folders of a directory.
type server struct {
	t       *testing.T
	dir     string
	address string
	flags   []string

	mu      sync.Mutex
	process *exec.Cmd
	exited  chan struct{}
}

func startServer(t *testing.T, flags ...string) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &server{t: t, dir: t.TempDir(), address: l.Addr().String(), flags: flags}
	require.NoError(t, l.Close())
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *server) start() {
	s.t.Helper()
	binary, err := serverBinary()
	require.NoError(s.t, err)
	args := append([]string{
		"--port", s.address, "--access", accessKey, "--secret", secretKey, "--region", region, "--quiet", "--keep-alive",
	}, s.flags...)
	process := exec.Command(binary, append(args, "posix", s.dir)...)
	process.Dir = s.t.TempDir()
	require.NoError(s.t, process.Start())
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = process.Wait()
	}()
	s.mu.Lock()
	s.process, s.exited = process, exited
	s.mu.Unlock()
	require.Eventually(s.t, func() bool {
		c, err := net.Dial("tcp", s.address)
		if err != nil {
			return false
		}
		return c.Close() == nil
	}, time.Minute, 5*time.Millisecond, "the server listens")
}

// kill ends the process with SIGKILL and returns when it is gone.
func (s *server) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.process.Process.Kill()
	<-s.exited
}

// newBucket makes an empty bucket and returns its name.
func (s *server) newBucket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(s.dir, "bucket-") //nolint:usetesting // a bucket is a folder of the server
	require.NoError(t, err)
	return filepath.Base(dir)
}

// open returns a client of a new bucket, after the configuration was changed.
func (s *server) open(t *testing.T, change ...func(*Config)) *Bucket {
	t.Helper()
	cfg := s.config()
	cfg.BucketName = s.newBucket(t)
	return openBucket(t, cfg, change...)
}

func (s *server) config() Config {
	cfg := defaults()
	cfg.Endpoint = s.address
	cfg.Region = region
	cfg.Insecure = true
	cfg.AccessKeyID, cfg.SecretAccessKey = accessKey, secretKey
	return cfg
}

func defaults() Config {
	var cfg Config
	cfg.RegisterFlags(flag.NewFlagSet("test", flag.PanicOnError))
	return cfg
}

func openBucket(t *testing.T, cfg Config, change ...func(*Config)) *Bucket {
	t.Helper()
	for _, c := range change {
		c(&cfg)
	}
	b, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	b.pause = time.Millisecond
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// serverBinary finds versitygw, or builds it once for all test runs.
func serverBinary() (string, error) { return findServer() }

var findServer = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("DURAMEN_VERSITYGW"); path != "" {
		return filepath.Abs(path)
	}
	top := filepath.Join("..", "..", "..")
	path := filepath.Join(top, "bin", "versitygw")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return must(filepath.Abs(path)), err
	}
	return buildServer(filepath.Join(top, "tools"))
})

func must(path string, err error) string {
	if err != nil {
		panic(err)
	}
	return path
}

// buildServer builds versitygw as the tools module pins it into the user's cache, which takes minutes the first time.
func buildServer(tools string) (string, error) {
	pinned, err := os.ReadFile(filepath.Join(tools, "go.mod"))
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	hash := sha256.Sum256(pinned)
	path := filepath.Join(cache, "duramen-tests", "versitygw-"+hex.EncodeToString(hash[:8]))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	temp := fmt.Sprintf("%s.%d", path, os.Getpid())
	build := exec.Command("go", "build", "-o", temp, "github.com/versity/versitygw/cmd/versitygw")
	build.Dir = tools
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build versitygw: %w\n%s", err, out)
	}
	return path, os.Rename(temp, path)
}
