package ingester

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	diskChildTask = "DURAMEN_TEST_DISK_CHILD"
	diskChildOut  = "DURAMEN_TEST_DISK_CHILD_OUT"
)

// TestDiskChild is the body of the processes that other tests start, measure and let die.
func TestDiskChild(t *testing.T) {
	task := strings.Split(os.Getenv(diskChildTask), "\n")
	var result string
	switch task[0] {
	case "":
		t.Skip("runs in a process of its own, started by other tests")
	case "fill":
		seed, err := strconv.ParseUint(task[2], 10, 64)
		require.NoError(t, err)
		result = fillVolume(t, task[1], seed)
	case "open":
		_, err := openTSDB(t.Context(), openOptions{Dir: task[1], TSDB: diskOptions(), Log: discardLog()})
		result = fmt.Sprint(err)
	case "churn":
		result = churn(t, task[1])
	case "replay":
		result = replayAndMeasure(t, task[1])
	default:
		t.Fatalf("unknown task %q", task)
	}
	require.NoError(t, os.WriteFile(os.Getenv(diskChildOut), []byte(result), 0o666))
	os.Exit(0) // like a kill: nothing is closed
}

// runDiskChild runs a task in a process of its own and returns its result, or what it printed when it failed.
func runDiskChild(t *testing.T, task ...string) (string, error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "result")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDiskChild$", "-test.count=1")
	cmd.Env = append(os.Environ(), diskChildTask+"="+strings.Join(task, "\n"), diskChildOut+"="+out)
	if printed, err := cmd.CombinedOutput(); err != nil {
		first, _, _ := strings.Cut(string(printed), "\n")
		return first, err
	}
	result, err := os.ReadFile(out)
	return string(result), err
}
