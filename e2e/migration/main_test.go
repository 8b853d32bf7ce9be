package migration

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
)

var peers = flag.Bool("e2e.peers", false, "run Thanos and Cortex, which `make peers` builds")

// The server and the tool, built once for all stories.
var duramenBinary, ctlBinary string

func TestMain(m *testing.M) {
	var errs [2]error
	duramenBinary, errs[0] = process.Build(context.Background(), false)
	ctlBinary, errs[1] = process.BuildCommand(context.Background(), "duramenctl", false)
	if err := errors.Join(errs[:]...); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// peer returns the binary of a peer, or skips a story that needs one.
func peer(t *testing.T, name string) string {
	t.Helper()
	if !*peers {
		t.Skipf("not run: it needs %s, which takes long to build. Run `make migration`.", name)
	}
	return tool(t, name)
}

func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := process.Tool(name)
	require.NoError(t, err)
	return path
}

// start starts a process, waits until it is ready, and has it killed at the end of the story.
func start(t *testing.T, spec process.Spec) *process.Process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	p, _, err := process.StartReady(ctx, spec)
	require.NoError(t, err)
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", spec.Name, p.LogTail(4000))
		}
	})
	return p
}

// address is a free one of loopback.
func address(t *testing.T) string {
	t.Helper()
	port, err := process.FreePort()
	require.NoError(t, err)
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// duramen starts a node with its own data below dir and its bucket at another place.
func duramen(t *testing.T, dir, bucket string, args ...string) *process.Process {
	t.Helper()
	spec, err := process.Duramen(duramenBinary, dir, append([]string{
		"-bucket.filesystem.directory=" + bucket, "-ingester.min-free-bytes=1", "-manifest.reconcile-interval=1s",
		"-compactor.interval=0", // as the page says of buckets that a peer has
	}, args...)...)
	require.NoError(t, err)
	return start(t, spec)
}

// prometheus starts a Prometheus that takes remote write and has external labels.
func prometheus(t *testing.T, dir, external string, args ...string) *process.Process {
	t.Helper()
	config := "scrape_configs: []\n"
	if external != "" {
		config = "global:\n  external_labels: " + external + "\n" + config
	}
	spec, err := process.Prometheus(tool(t, "prometheus"), dir, config, append([]string{
		"--web.enable-remote-write-receiver", "--storage.tsdb.min-block-duration=2h", "--storage.tsdb.max-block-duration=2h",
	}, args...)...)
	require.NoError(t, err)
	return start(t, spec)
}

// run runs a program to its end and returns what it said.
func run(t *testing.T, binary string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput()
	require.NoError(t, err, "%s %s\n%s", binary, strings.Join(args, " "), out)
	return string(out)
}

// copyBlocks copies the blocks in a folder into another one, as an operator would.
func copyBlocks(from, to string) error {
	found, err := filepath.Glob(filepath.Join(from, "*", "meta.json"))
	if err != nil {
		return err
	}
	for _, meta := range found {
		dir := filepath.Dir(meta)
		if err := os.CopyFS(filepath.Join(to, filepath.Base(dir)), os.DirFS(dir)); err != nil {
			return err
		}
	}
	return nil
}

// eventually waits until ready returns no error: for longer than the minute after which a Cortex looks again at an index
// of blocks.
func eventually(t *testing.T, ready func() error) {
	t.Helper()
	var err error
	require.Eventually(t, func() bool { err = ready(); return err == nil }, 2*time.Minute, 50*time.Millisecond, "%v", lazy{&err})
}

// lazy prints an error as it is when it is printed.
type lazy struct{ err *error }

func (l lazy) String() string { return fmt.Sprint(*l.err) }

// at returns a client that sends queries below a URL, for a tenant unless it is empty.
func at(t *testing.T, url, tenant string) *client.Client {
	t.Helper()
	c := client.Prometheus(url)
	c.Tenant = tenant
	t.Cleanup(c.CloseIdle)
	return c
}
