// Package demo holds the story of `make demo`: what somebody sees who tries Duramen for the first time.
package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
	"github.com/duramendb/duramen/internal/checkout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// timeout is generous: the first run builds Duramen.
const timeout = 5 * time.Minute

// terminal runs a command as a terminal does: in a process group of its own, which gets all signals.
type terminal struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the command has ended and all that it said was read
	err  error

	mu   sync.Mutex
	said bytes.Buffer
}

func open(t *testing.T, name string, args ...string) *terminal {
	t.Helper()
	root, err := checkout.Top()
	require.NoError(t, err)
	term := &terminal{cmd: exec.Command(name, args...), done: make(chan struct{})}
	term.cmd.Dir = root
	term.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	r, w, err := os.Pipe()
	require.NoError(t, err)
	term.cmd.Stdout, term.cmd.Stderr = w, w
	require.NoError(t, term.cmd.Start())
	require.NoError(t, w.Close())
	go func() {
		defer close(term.done)
		defer r.Close()
		for s := bufio.NewReader(r); ; {
			line, err := s.ReadString('\n')
			term.mu.Lock()
			term.said.WriteString(line)
			term.mu.Unlock()
			if err != nil {
				break // every process that could write has ended
			}
		}
		term.err = term.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-term.cmd.Process.Pid, syscall.SIGKILL)
		<-term.done
		if t.Failed() {
			t.Logf("%s said:\n%s", name, term.text())
		}
	})
	return term
}

func (term *terminal) text() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.said.String()
}

func (term *terminal) await(t *testing.T, what string) {
	t.Helper()
	require.Eventually(t, func() bool {
		select {
		case <-term.done:
			t.Errorf("ended before it said %q", what)
			return true
		default:
			return strings.Contains(term.text(), what)
		}
	}, timeout, 20*time.Millisecond)
}

func (term *terminal) interrupt(t *testing.T) {
	t.Helper()
	require.NoError(t, syscall.Kill(-term.cmd.Process.Pid, syscall.SIGINT))
	select {
	case <-term.done:
	case <-time.After(timeout):
		t.Fatal("does not end on Ctrl-C")
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := process.FreePort()
	require.NoError(t, err)
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// TestMakeDemo: samples of both servers arrive, what is printed is true, and Ctrl-C leaves nothing.
func TestMakeDemo(t *testing.T) {
	_, err := process.Tool("prometheus")
	require.NoError(t, err)
	duramen, prometheus := freeAddress(t), freeAddress(t)
	term := open(t, "make", "demo", "DEMOARGS=-duramen="+duramen+" -prometheus="+prometheus)
	term.await(t, "Ctrl-C stops both")
	text := term.text()

	asked := regexp.MustCompile(`curl -s '(http://[^']+)'\n +(\{.*\})\n`).FindStringSubmatch(text)
	require.NotNil(t, asked, text)
	for _, job := range []string{"duramen", "prometheus"} {
		require.Contains(t, asked[2], `"job":"`+job+`"`)
		require.Contains(t, get(t, asked[1]), `"job":"`+job+`"`)
	}
	source := regexp.MustCompile(`with this URL: (\S+)\n`).FindStringSubmatch(text)
	require.NotNil(t, source)
	require.Contains(t, get(t, source[1]+"/api/v1/status/buildinfo"), `"status":"success"`)
	for _, file := range regexp.MustCompile(`deploy/\S+`).FindAllString(text, -1) {
		require.FileExists(t, filepath.Join(term.cmd.Dir, file))
	}
	rules := get(t, "http://"+prometheus+"/api/v1/rules")
	require.Contains(t, rules, `"type":"alerting"`)
	require.NotContains(t, rules, `"health":"err"`)
	c := client.Duramen("http://"+duramen, "")
	defer c.CloseIdle()
	requests, err := c.Metric(t.Context(), "duramen_distributor_requests_total", `format="2.0"`, `result="ok"`)
	require.NoError(t, err)
	require.Positive(t, requests)
	for _, line := range regexp.MustCompile(`(?m)^ +bin/duramenctl .*$`).FindAllString(text, -1) {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Dir = term.cmd.Dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s: %s", line, out)
		require.NotEmpty(t, out)
	}

	dir := regexp.MustCompile(`(?m)^Data +(\S+),`).FindStringSubmatch(text)
	require.NotNil(t, dir)
	require.FileExists(t, filepath.Join(dir[1], "prometheus", "log"))
	require.Len(t, processesIn(t, dir[1]), 2)
	term.interrupt(t)
	require.Contains(t, term.text(), "Stopping prometheus …\nStopping duramen …\n")
	require.NoDirExists(t, dir[1])
	require.Empty(t, processesIn(t, dir[1]))
	for _, a := range []string{duramen, prometheus} {
		_, err := net.Dial("tcp", a)
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
	}
}

// TestTheDemoEndsWithItsServers: one that is killed is named, the other one is stopped, and the exit code says it.
func TestTheDemoEndsWithItsServers(t *testing.T) {
	dir, demo := filepath.Join(t.TempDir(), "kept"), build(t)
	term := open(t, demo, "-bin="+binaries(t), "-dir="+dir, "-duramen="+freeAddress(t), "-prometheus="+freeAddress(t))
	term.await(t, "Ctrl-C stops both")
	require.Contains(t, term.text(), dir+", kept;")
	for _, pid := range processesIn(t, dir) {
		name, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		require.NoError(t, err)
		if filepath.Base(name) == "prometheus" {
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		}
	}
	<-term.done
	exit := (*exec.ExitError)(nil)
	require.ErrorAs(t, term.err, &exit)
	require.Equal(t, 1, exit.ExitCode())
	require.Contains(t, term.text(), "prometheus ended by itself; the end of its log:")
	require.Empty(t, processesIn(t, dir))
	require.FileExists(t, filepath.Join(dir, "duramen", "log"))
}

// TestTheDemoSaysWhatIsWrong: a port that was asked for and is taken, and a binary that is missing.
func TestTheDemoSaysWhatIsWrong(t *testing.T) {
	demo := build(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	for says, args := range map[string][]string{
		"Duramen cannot listen: listen tcp " + l.Addr().String() + ": bind: address already in use": {"-duramen=" + l.Addr().String()},
		"run `make demo`, which builds it": {"-bin=" + t.TempDir(), "-duramen=" + freeAddress(t), "-prometheus=" + freeAddress(t)},
	} {
		term := open(t, demo, args...)
		<-term.done
		require.Error(t, term.err)
		require.Contains(t, term.text(), says)
	}
}

// build builds the demo's program.
func build(t *testing.T) string {
	t.Helper()
	root, err := checkout.Top()
	require.NoError(t, err)
	binary := filepath.Join(root, "bin", "e2e", "demo")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./deploy/demo")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return binary
}

// binaries returns a folder with both servers.
func binaries(t *testing.T) string {
	t.Helper()
	duramen, err := process.Build(t.Context(), false)
	require.NoError(t, err)
	prometheus, err := process.Tool("prometheus")
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.Symlink(duramen, filepath.Join(dir, "duramen")))
	require.NoError(t, os.Symlink(prometheus, filepath.Join(dir, "prometheus")))
	return dir
}

// processesIn returns the processes whose command line names the folder.
func processesIn(t *testing.T, dir string) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(line, []byte("="+dir+"/")) {
			continue
		}
		var pid int
		_, err = fmt.Sscanf(file, "/proc/%d/cmdline", &pid)
		require.NoError(t, err)
		pids = append(pids, pid)
	}
	return pids
}

func get(t *testing.T, url string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := hc.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, errors.Join(err, resp.Body.Close()))
	require.Equal(t, http.StatusOK, resp.StatusCode, string(body))
	return string(body)
}
