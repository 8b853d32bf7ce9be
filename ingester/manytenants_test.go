package ingester

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
)

const manyTenantsEnv = "DURAMEN_TEST_MANY_TENANTS"

// TestThousandTenantsFitInAGiB opens a thousand TSDBs with two m-mapped chunks each in a process of its own, whose peak
// memory no other test has raised.
func TestThousandTenantsFitInAGiB(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("opens a thousand TSDBs and measures")
	}
	if os.Getenv(manyTenantsEnv) != "" {
		thousandTenants(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestThousandTenantsFitInAGiB$", "-test.v")
	cmd.Env = append(os.Environ(), manyTenantsEnv+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	peak := regexp.MustCompile(`peak (\d+) kB`).FindSubmatch(out)
	require.NotNil(t, peak, string(out))
	kb, err := strconv.Atoi(string(peak[1]))
	require.NoError(t, err)
	t.Logf("%d MiB", kb>>10)
	require.Less(t, kb, 1<<20)
}

func thousandTenants(t *testing.T) {
	f := newFixture(t)
	f.clock.advance(24 * time.Hour)
	b := &batch{}
	var ts []int64
	for n := range int64(300) { // a chunk holds about 120
		ts = append(ts, ms(testStart)+n*15_000)
	}
	b.floats(named("x"), 1, ts...)
	r := &duramenpb.PushResult{}
	for n := range 1000 {
		id := fmt.Sprintf("tenant-%04d", n)
		require.NoError(t, f.Push(context.Background(), id, &b.Batch, r))
		require.Equal(t, len(ts), r.Floats)
		f.tenants.byID[id].life.db.ForceHeadMMap()
	}
	require.Len(t, f.TenantStats(), 1000)
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	fmt.Printf("peak %s kB\n", regexp.MustCompile(`VmHWM:\s+(\d+)`).FindSubmatch(status)[1])
}
