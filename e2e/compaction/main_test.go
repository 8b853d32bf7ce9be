package compaction

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/e2e/process"
)

var (
	seedFlag = flag.Uint64("e2e.seed", 0, "seed of all that is random; 0 draws one and prints it")
	duration = flag.Duration("e2e.duration", 0, "how long the chaos goes on; 0 leaves it out")
)

// patience is how long something may take that takes seconds.
const patience = 2 * time.Minute

var duramenBinary string

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("e2e/compaction: skipped, for these stories are not short")
		return
	}
	if *seedFlag == 0 {
		*seedFlag = rand.Uint64N(1 << 32)
	}
	fmt.Printf("e2e/compaction: go test ./e2e/compaction -args -e2e.seed=%d -e2e.duration=%s\n", *seedFlag, *duration)
	var err error
	if duramenBinary, err = process.Build(context.Background(), false); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// start starts a node over the bucket. It is killed at the end of the test if it still runs.
func start(t *testing.T, dir string, args ...string) *process.Process {
	t.Helper()
	spec, err := process.Duramen(duramenBinary, dir, args...)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	p, _, err := process.StartReady(ctx, spec)
	require.NoError(t, err)
	t.Cleanup(func() {
		p.Kill()
		log := p.LogTail(1 << 30)
		for _, fault := range []string{"panic: ", "fatal error: "} {
			require.NotContains(t, log, fault)
		}
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", dir, log[max(0, len(log)-3000):])
		}
	})
	return p
}

// tool returns the path of a tool in ./bin.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := process.Tool(name)
	require.NoError(t, err)
	return path
}

// lines counts those of text that are not empty.
func lines(text string) (n int) {
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" {
			n++
		}
	}
	return n
}
