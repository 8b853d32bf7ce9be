package e2e

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
	"github.com/duramendb/duramen/internal/loadledger"
	"github.com/duramendb/duramen/internal/loadplan"
	"github.com/duramendb/duramen/internal/seriesgen"
)

var (
	samples = flag.Int64("e2e.samples", 300_000, "how many samples the story of duramenctl load and verify has")
	kills   = flag.Int("e2e.kills", 2, "how often the server is killed while they are sent")
)

// The exit codes of duramenctl.
const (
	exitDone  = 0
	exitWrong = 3
)

// ctl is a duramenctl that was started.
type ctl struct {
	cmd  *exec.Cmd
	out  bytes.Buffer // both outputs
	done chan struct{}
}

// startCtl starts duramenctl. At the end of the story it is killed if it still runs.
func startCtl(t *testing.T, binary string, args ...string) *ctl {
	t.Helper()
	c := &ctl{cmd: exec.CommandContext(t.Context(), binary, args...), done: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.out
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, c.cmd.Start())
	go func() {
		defer close(c.done)
		_ = c.cmd.Wait()
	}()
	t.Cleanup(c.kill)
	return c
}

func (c *ctl) kill() {
	_ = c.cmd.Process.Kill()
	<-c.done
}

// wait returns the exit code and what was printed.
func (c *ctl) wait() (int, string) {
	<-c.done
	return c.cmd.ProcessState.ExitCode(), c.out.String()
}

// loadStory is a node, and what its lives took.
type loadStory struct {
	*node
	t              *testing.T
	binary, dir    string
	cpu            time.Duration
	peak           int64
	kills, flushes int
}

func (s *loadStory) path(name string) string { return filepath.Join(s.dir, name) }

// measure adds what the present life of the node took; it is about to end.
func (s *loadStory) measure() {
	cpu, err := s.CPU()
	require.NoError(s.t, err)
	peak, err := s.PeakRSS()
	require.NoError(s.t, err)
	s.cpu += cpu
	s.peak = max(s.peak, peak)
}

func (s *loadStory) load(ledger string, args ...string) *ctl {
	return startCtl(s.t, s.binary, append([]string{"load", "-url=" + s.URL, "-ledger=" + s.path(ledger)}, args...)...)
}

// ctl runs duramenctl and requires its exit code.
func (s *loadStory) ctl(want int, args ...string) string {
	s.t.Helper()
	code, out := startCtl(s.t, s.binary, append(args, "-url="+s.URL)...).wait()
	require.Equal(s.t, want, code, "%v:\n%s", args, out)
	return out
}

// noted returns how many requests a ledger knows the fate of.
func (s *loadStory) noted(ledger string) int {
	l, err := loadledger.Read(s.path(ledger))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, loadledger.ErrDamaged) {
		return 0 // it is only being created
	}
	require.NoError(s.t, err)
	return l.Noted()
}

// untilNoted waits until a ledger knows that many requests, or the load has ended.
func (s *loadStory) untilNoted(c *ctl, ledger string, n int) {
	for s.noted(ledger) < n {
		select {
		case <-c.done:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// giveUp sends a small load that gives up at once while the node is killed: what it had under way is unknown, what it sent
// afterwards was never stored.
func (s *loadStory) giveUp(n int) string {
	ledger := fmt.Sprintf("given-up-%d", n)
	l := s.load(ledger, "-tenant=given-up", "-seed="+strconv.Itoa(1000+n), "-samples=40000", "-series=2000", "-attempts=1",
		"-connections=4", "-request=500", "-rate=20000")
	s.untilNoted(l, ledger, 20)
	s.measure()
	s.Kill()
	s.kills++
	require.NoError(s.t, s.start())
	code, out := l.wait()
	require.Contains(s.t, []int{exitDone, exitWrong}, code, out)
	return ledger
}

func (s *loadStory) flush(tenants ...string) {
	for _, tenant := range tenants {
		c := client.Duramen(s.URL, tenant)
		if flush(s.t.Context(), c) {
			s.flushes++
		}
		c.CloseIdle()
	}
}

// TestLoadAndVerify is what an operator would do to believe us: duramenctl loads a node that is killed with SIGKILL again
// and again and flushed in between, the load itself is killed once and goes on, and duramenctl verify finds every
// acknowledged sample once, with its exact bits, and nothing that was not sent.
func TestLoadAndVerify(t *testing.T) {
	t.Logf("-e2e.samples=%d -e2e.kills=%d", *samples, *kills)
	rnd := random(t)
	binary, err := process.BuildCommand(t.Context(), "duramenctl", false)
	require.NoError(t, err)
	dir := t.TempDir()
	s := &loadStory{node: startNode(t, filepath.Join(dir, "node")), t: t, binary: binary, dir: dir}
	tenants := []string{"load-0", "load-1", "load-2"}

	// As many scrapes as there are series in a tenant, divided by ten; over 14 hours, so that both tiers answer.
	series := 500
	for int64(series)*int64(series)/10*int64(len(tenants)) < *samples {
		series += 500
	}
	scrapes := int(*samples)/series/len(tenants) + 1
	args := []string{
		"-tenants=" + strconv.Itoa(len(tenants)), "-series=" + strconv.Itoa(series), "-samples=" + strconv.FormatInt(*samples, 10),
		"-interval=" + (virtual / time.Duration(scrapes)).Truncate(time.Millisecond).String(), "-churn=0.1",
		"-seed=" + strconv.FormatUint(rnd.Uint64N(1<<30), 10),
	}
	begin := time.Now()
	l := s.load("ledger", args...)
	s.untilNoted(l, "ledger", 1)
	ledger, err := loadledger.Read(s.path("ledger"))
	require.NoError(t, err)
	layout, err := loadplan.NewLayout(ledger.Config())
	require.NoError(t, err)

	var givenUp []string
	steps := 2**kills + 1
	for step := 1; step <= steps; step++ {
		s.untilNoted(l, "ledger", layout.Requests()*step/(steps+1))
		switch {
		case step == steps/2+1:
			l.kill()
			l = s.load("ledger", "-resume")
		case step%2 == 1:
			givenUp = append(givenUp, s.giveUp(step))
		default:
			s.flush(tenants...)
		}
	}
	code, out := l.wait()
	require.Equal(t, exitDone, code, out)
	s.measure()
	loaded := time.Since(begin)
	require.GreaterOrEqual(t, s.kills, *kills)
	require.Positive(t, s.flushes)

	t.Logf("%d samples of %d series, %d kills of the server, 1 of the load, %d flushes: %s, server CPU %s, peak RSS %d MiB",
		layout.Samples(), layout.Pods()*seriesgen.SeriesPerPod*len(tenants), s.kills, s.flushes, loaded.Round(time.Millisecond),
		s.cpu, s.peak>>20)
	s.verify()

	unknown := 0
	for _, ledger := range givenUp {
		out := s.ctl(exitDone, "verify", "-ledger="+s.path(ledger))
		m := regexp.MustCompile(`refused or unknown +(\d+) +(\d+)`).FindStringSubmatch(out)
		require.NotNil(t, m, out)
		n, err := strconv.Atoi(m[1])
		require.NoError(t, err)
		unknown += n
	}
	require.Positive(t, unknown, "no load was hit by a kill")
	t.Logf("%d samples of unknown fate in %d loads", unknown, len(givenUp))

	// Once more with everything in the bucket, from another life.
	s.flush(tenants...)
	s.crash()
	s.ctl(exitDone, "verify", "-ledger="+s.path("ledger"), "-via=remote-read")

	s.verifyCanFail(ledger.Config())
}

// verify requires that everything is right, and says what that took.
func (s *loadStory) verify() {
	before, err := s.CPU()
	require.NoError(s.t, err)
	begin := time.Now()
	c := startCtl(s.t, s.binary, "verify", "-ledger="+s.path("ledger"), "-url="+s.URL)
	code, out := c.wait()
	require.Equal(s.t, exitDone, code, out)
	took := time.Since(begin)
	after, err := s.CPU()
	require.NoError(s.t, err)
	peak, err := s.PeakRSS()
	require.NoError(s.t, err)
	usage, ok := c.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	require.True(s.t, ok)
	s.t.Logf("verified in %s, server CPU %s, peak RSS %d MiB, own CPU %s, peak RSS %d MiB:\n%s", took.Round(time.Millisecond),
		after-before, peak>>20, c.cmd.ProcessState.UserTime()+c.cmd.ProcessState.SystemTime(), usage.Maxrss>>10, out)
}

// verifyCanFail adds one sample that the load never sent, and asks for a run that never was.
func (s *loadStory) verifyCanFail(cfg loadplan.Config) {
	plan, err := loadplan.New(cfg)
	require.NoError(s.t, err)
	series := prompb.TimeSeries{Samples: []prompb.Sample{{Timestamp: client.Now(), Value: 1}}}
	plan.Generator(0).Labels(seriesgen.SeriesPerPod + 11).Range(func(l labels.Label) {
		series.Labels = append(series.Labels, prompb.Label{Name: l.Name, Value: l.Value})
	})
	raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{series}}).Marshal()
	require.NoError(s.t, err)
	c := client.Duramen(s.URL, cfg.Tenants[0])
	defer c.CloseIdle()
	a, err := c.Push(s.t.Context(), client.V1, raw)
	require.NoError(s.t, err)
	require.True(s.t, a.OK(), a.Body)
	out := s.ctl(exitWrong, "verify", "-ledger="+s.path("ledger"))
	require.Contains(s.t, out, "invented, never sent, by query")
	require.Contains(s.t, out, "invented, never sent, by remote-read")

	out = s.ctl(exitWrong, "verify", "-seed=424242", "-tenant=load-0", "-series=500", "-samples=5000")
	require.Contains(s.t, out, "missing, acknowledged, by query")
}
