package cluster

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/e2e/process"
)

var (
	seedFlag = flag.Uint64("e2e.seed", 0, "seed of all that is random; 0 draws one and prints it")
	duration = flag.Duration("e2e.duration", 0, "how long the stories of chaos go on; 0 leaves them out")
	race     = flag.Bool("e2e.race", false, "run servers that were built with the race detector")
)

// The server, built once for all stories.
var duramenBinary string

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("e2e/cluster: skipped, for these stories are not short")
		return
	}
	if *seedFlag == 0 {
		*seedFlag = rand.Uint64N(1 << 32)
	}
	fmt.Printf("e2e/cluster: go test ./e2e/cluster -args -e2e.seed=%d -e2e.duration=%s -e2e.race=%t\n", *seedFlag, *duration, *race)
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

// inNamespace runs the calling story in a network namespace of its own and reports whether this is the process that lives
// there; the other one has nothing more to do. Where no namespace can be made, the story is skipped.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if Alone() {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v=true", "-test.count=1", "-test.timeout=0",
		"-e2e.seed="+fmt.Sprint(*seedFlag), "-e2e.duration="+duration.String(), fmt.Sprintf("-e2e.race=%t", *race))
	if err := InNamespace(cmd); err != nil {
		t.Skip(err)
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("%s", out)
	return false
}

// startTimeout is generous: a start replays the log, on a machine that may be busy with other tests.
const startTimeout = 90 * time.Second
