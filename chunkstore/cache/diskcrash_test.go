package cache

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// crashDir in the environment makes this test binary a process that fills a cache there until it is killed.
const crashDir = "DURAMEN_TEST_CACHE_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		fillUntilKilled(dir)
	}
	goleak.VerifyTestMain(m)
}

// crashed is the i-th object that the process writes.
func crashed(i int) Object { return Object{fmt.Sprint("tenant/block/", i), int64(1000 + i*37%200_000)} }

func fillUntilKilled(dir string) {
	d, err := openDisk(DiskConfig{Dir: dir, MaxBytes: 64 << 20}, slog.New(slog.DiscardHandler), nil, roomy())
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	<-d.Loaded()
	for i := 0; ; i++ {
		o := crashed(i)
		keep(d, o, 0, o.Size)
		fmt.Println("kept", i)
	}
}

// TestDiskSurvivesSIGKILL: what was kept before the process was killed is found by the next one.
func TestDiskSurvivesSIGKILL(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		last := -1
		lines := bufio.NewScanner(out)
		for last < 60+round*11 && lines.Scan() {
			_, err := fmt.Sscanf(strings.TrimSpace(lines.Text()), "kept %d", &last)
			require.NoError(t, err, lines.Text())
		}
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())

		d := mustOpen(t, dir, 64<<20, roomy())
		for i := range last + 1 {
			o := crashed(i)
			require.Equal(t, o.Size, found(t, d, o, 0, o.Size), "object %d of %d", i, last)
		}
		require.NoError(t, d.Close())
	}
}
