package main

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/internal/cli"
)

// TestMain lets the test binary be the command: a test starts itself with this variable set.
func TestMain(m *testing.M) {
	if os.Getenv("BE_DURAMENCTL") != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// start runs the tool as a process and returns its exit code and outputs.
func start(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = []string{"BE_DURAMENCTL=1"}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil {
		require.ErrorAs(t, err, &exit)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestVersion(t *testing.T) {
	code, out, errs := start(t, "version")
	require.Equal(t, cli.ExitDone, code, errs)
	require.Contains(t, out, "duramenctl ")
	code, _, errs = start(t, "version", "please")
	require.Equal(t, cli.ExitUsage, code)
	require.Contains(t, errs, "no arguments are taken")
	code, _, errs = start(t, "versoin")
	require.Equal(t, cli.ExitUsage, code)
	require.Contains(t, errs, `did you mean "version"?`)
}

// TestEveryCommandHasHelp walks the table: each command says what it does and shows a line that can be pasted.
func TestEveryCommandHasHelp(t *testing.T) {
	var walk func(c cli.Command, path []string)
	walk = func(c cli.Command, path []string) {
		require.NotEmpty(t, c.Summary, path)
		require.Contains(t, c.Example, "duramenctl", path)
		require.NotEqual(t, c.Run == nil, len(c.Commands) == 0, "%q is a group or a command", path)
		var out bytes.Buffer
		args := append([]string{"help"}, path...)
		require.Equal(t, cli.ExitDone, cli.Main(t.Context(), root(), args, cli.Env{Stdout: &out, Stderr: &out}))
		require.Contains(t, out.String(), "Example:\n", path)
		for _, next := range c.Commands {
			walk(next, append(slices.Clip(path), next.Name))
		}
	}
	walk(root(), nil)
}
