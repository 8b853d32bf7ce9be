// Package objectstore owns a real S3 server for tests: versitygw on a free port of loopback, whose buckets are the folders
// of a directory. It refuses to be faulty beyond dying by SIGKILL and coming back on the same port and directory. Read
// package faultproxy for what else can happen between it and a client.
package objectstore

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/certtest"
)

// What clients of every server say.
const (
	AccessKey = "duramen-test"
	SecretKey = "duramen-test-secret"
	Region    = "us-east-1"
)

// Options says how a server is to be.
type Options struct {
	// TLS is the authority that issues the server's certificate; nil means plain HTTP.
	TLS *certtest.Authority
	// Args are further arguments of versitygw, before the backend's name, such as --virtual-domain.
	Args []string
}

// Server is a server that was started. It is safe for concurrent use.
type Server struct {
	binary  string
	args    []string
	dir     string
	scratch string
	address string

	mu      sync.Mutex
	process *exec.Cmd // nil when it does not run
	exited  chan struct{}
}

// Start starts a server with an empty directory. It ends with the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &Server{dir: t.TempDir(), scratch: t.TempDir(), address: l.Addr().String()}
	require.NoError(t, l.Close())
	s.binary, err = findBinary(t)
	require.NoError(t, err)
	s.args = append([]string{
		"--port", s.address, "--access", AccessKey, "--secret", SecretKey, "--region", Region, "--quiet", "--keep-alive",
	}, o.Args...)
	if o.TLS != nil {
		cert, key := o.TLS.Issue(t, "server")
		s.args = append(s.args, "--cert", cert, "--key", key)
	}
	s.args = append(s.args, "posix", s.dir)
	require.NoError(t, s.Restart())
	t.Cleanup(s.Kill)
	return s
}

// startTimeout is generous: the machine may be busy with other tests.
const startTimeout = time.Minute

// Restart kills the server if it runs, starts it on the same port and directory, and returns when it listens.
func (s *Server) Restart() error {
	s.Kill()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := exec.CommandContext(context.Background(), s.binary, s.args...)
	p.Dir = s.scratch
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that is killed leaves nothing running
	if err := p.Start(); err != nil {
		return fmt.Errorf("start versitygw: %w", err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = p.Wait()
	}()
	s.process, s.exited = p, exited
	for deadline := time.Now().Add(startTimeout); ; {
		if c, err := net.Dial("tcp", s.address); err == nil { //nolint:noctx // loopback
			return c.Close()
		}
		select {
		case <-exited:
			return fmt.Errorf("versitygw ended: %s", p.ProcessState)
		case <-time.After(5 * time.Millisecond):
			if time.Now().After(deadline) {
				return fmt.Errorf("versitygw does not listen on %s after %s", s.address, startTimeout)
			}
		}
	}
}

// Kill ends the server with SIGKILL and returns when it is gone. It may have ended before.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		_ = s.process.Process.Kill()
		<-s.exited
	}
	s.process = nil
}

// Running reports whether the server was started and not killed since.
func (s *Server) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process != nil
}

// Address is the server's host:port.
func (s *Server) Address() string { return s.address }

// Dir is the directory in which each bucket is a folder, and each object a file.
func (s *Server) Dir() string { return s.dir }

// NewBucket makes an empty bucket and returns its name. The server need not run.
func (s *Server) NewBucket(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(s.dir, "bucket-") //nolint:usetesting // a bucket is a folder of the server
	require.NoError(t, err)
	return filepath.Base(dir)
}

// BucketDir is the folder of a bucket.
func (s *Server) BucketDir(bucket string) string { return filepath.Join(s.dir, bucket) }
