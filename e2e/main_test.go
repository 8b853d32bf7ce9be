package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/e2e/process"
)

var (
	seedFlag = flag.Uint64("e2e.seed", 0, "seed of all that is random; 0 draws one and prints it")
	duration = flag.Duration("e2e.duration", 20*time.Second, "how long each story with killing goes on")
	race     = flag.Bool("e2e.race", false, "run a server that was built with the race detector")
)

// The server, built once for all stories.
var duramenBinary string

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("e2e: skipped, for these stories are not short")
		return
	}
	if *seedFlag == 0 {
		*seedFlag = rand.Uint64N(1 << 32)
	}
	fmt.Printf("e2e: go test ./e2e -args -e2e.seed=%d -e2e.duration=%s -e2e.race=%t\n", *seedFlag, *duration, *race)
	var err error
	if duramenBinary, err = process.Build(context.Background(), *race); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// random returns a source of its own for each story, so that stories do not change one another's course.
func random(t *testing.T) *rand.Rand {
	var h uint64
	for _, b := range []byte(t.Name()) {
		h = h*31 + uint64(b)
	}
	return rand.New(rand.NewPCG(*seedFlag, h))
}

// node is a Duramen process that the story starts, kills and starts again on the same address and directory.
type node struct {
	*process.Process
	spec process.Spec
	t    *testing.T
}

// startNode starts a node with its data below dir. At the end of the story it is killed if it still runs. A data race or a
// panic in its log fails the story; the end of the log is shown if the story failed.
func startNode(t *testing.T, dir string, args ...string) *node {
	t.Helper()
	spec, err := process.Duramen(duramenBinary, dir, args...)
	require.NoError(t, err)
	n := &node{spec: spec, t: t}
	require.NoError(t, n.start())
	t.Cleanup(func() {
		n.Kill()
		for _, fault := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
			log := n.LogTail(1 << 30)
			if at := strings.Index(log, fault); at >= 0 {
				t.Errorf("the node's log says:\n%s", log[at:min(at+6000, len(log))])
			}
		}
		if t.Failed() {
			t.Logf("the end of the node's log:\n%s", n.LogTail(3000))
		}
	})
	return n
}

// startTimeout is generous: a start replays the log, on a machine that may be busy with other tests.
const startTimeout = 90 * time.Second

func (n *node) start() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	p, _, err := process.StartReady(ctx, n.spec)
	if err == nil {
		n.Process = p
	}
	return err
}

// crash kills the node with SIGKILL and starts it again.
func (n *node) crash() {
	n.t.Helper()
	n.Kill()
	require.NoError(n.t, n.start())
}

// bucketDir is where the node keeps its bucket.
func (n *node) bucketDir(tenant string) string { return filepath.Join(n.Dir, "data", "bucket", tenant) }

func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := process.Tool(name)
	require.NoError(t, err)
	return path
}
