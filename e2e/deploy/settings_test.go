package deploy

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/process"
)

// checkSettings has the real binary judge a command line and environment, as `duramen -config.check`.
func checkSettings(t *testing.T, args, environment []string) {
	t.Helper()
	binary, err := process.Build(t.Context(), false)
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), binary, append(args, "-config.check")...)
	cmd.Env, cmd.Dir = environment, t.TempDir()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%v %v\n%s", args, environment, out)
}

// tool returns the path of a program that the machine may have, and skips the test when it has not.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed here", name)
	}
	return path
}

func TestSystemdUnit(t *testing.T) {
	checkSettings(t, []string{"-config.file=" + absolute(t, "deploy/systemd/duramen.yaml"), "-data-dir=/var/lib/duramen"}, nil)
	cmd := exec.CommandContext(t.Context(), tool(t, "systemd-analyze"), "security", "--offline=true", "--threshold=25",
		absolute(t, "deploy/systemd/duramen.service"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func absolute(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(top, name))
	require.NoError(t, err)
	return path
}
