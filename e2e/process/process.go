// Package process builds, starts, watches, kills and measures real processes on loopback, for stories and benchmarks. It
// knows command lines and signals, and nothing of samples. Read package client next for how to talk to them.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/duramendb/duramen/internal/procstat"
)

// Spec says how to start a process. It can be started again and again, on the same port and directory.
type Spec struct {
	// Name is for messages.
	Name   string
	Binary string
	Args   []string
	// Dir is the working directory; the log is written to "log" in it, one start after another.
	Dir string
	// URL is where it listens, and Ready the path that answers 200 when it is ready.
	URL, Ready string
	// Client asks whether it is ready; nil is one that knows no password and no authority of a test's own.
	Client *http.Client
	// OwnGroup keeps the signals of a terminal, such as Ctrl-C, from the process.
	OwnGroup bool
}

// Process is a process that was started. Its owner calls Kill or Terminate.
type Process struct {
	Spec
	cmd  *exec.Cmd
	done chan struct{} // closed when the process was waited for
	err  error         // what waiting returned; read after done
}

// pollEvery is how often readiness is asked for: fine enough for figures of tens of milliseconds.
const pollEvery = 2 * time.Millisecond

// Start starts a process and returns at once.
func Start(spec Spec) (*Process, error) {
	if err := os.MkdirAll(spec.Dir, 0o755); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(spec.Dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &Process{Spec: spec, cmd: exec.CommandContext(context.Background(), spec.Binary, spec.Args...), done: make(chan struct{})}
	p.cmd.Dir = spec.Dir
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// A test that is killed leaves nothing running.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: spec.OwnGroup}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

// StartReady starts a process and waits until it is ready. It returns how long that took.
func StartReady(ctx context.Context, spec Spec) (*Process, time.Duration, error) {
	begin := time.Now()
	p, err := Start(spec)
	if err != nil {
		return nil, 0, err
	}
	if err := p.WaitReady(ctx); err != nil {
		p.Kill()
		return nil, 0, fmt.Errorf("%w; the end of its log:\n%s", err, p.LogTail(4000))
	}
	return p, time.Since(begin), nil
}

// WaitReady returns when the process answers its Ready path with 200, has ended, or ctx is over.
func (p *Process) WaitReady(ctx context.Context) error {
	client := p.Client
	if client == nil {
		client = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	}
	for {
		if get(ctx, client, p.URL+p.Ready) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", p.Name, ctx.Err())
		case <-p.done:
			return fmt.Errorf("%s ended before it was ready: %w", p.Name, p.err)
		case <-time.After(pollEvery):
		}
	}
}

func get(ctx context.Context, client *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode == http.StatusOK
}

// PID returns the process' number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill ends the process with SIGKILL and waits for it. It may have ended before.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Terminate asks the process to end with SIGTERM and waits for it. An exit code other than 0, or none within the timeout,
// is an error.
func (p *Process) Terminate(timeout time.Duration) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(timeout):
		p.Kill()
		return fmt.Errorf("%s did not end within %s of SIGTERM", p.Name, timeout)
	}
}

// LogTail returns the last n bytes of the log.
func (p *Process) LogTail(n int) string {
	data, err := os.ReadFile(filepath.Join(p.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-n):])
}

// CPU returns the user and system time that the process has spent.
func (p *Process) CPU() (time.Duration, error) { return procstat.CPU(p.PID()) }

// PeakRSS returns the most memory that the process has held resident, in bytes.
func (p *Process) PeakRSS() (int64, error) { return procstat.PeakRSS(p.PID()) }

// FreePort returns a port of loopback that nobody listens on at the moment.
func FreePort() (int, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
