package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
)

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

// startNode starts a server with its data below dir; it is killed at the end of the story.
func startNode(t *testing.T, dir string, args ...string) *process.Process {
	t.Helper()
	spec, err := process.Duramen(duramenBinary, dir, args...)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	p, _, err := process.StartReady(ctx, spec)
	require.NoError(t, err)
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("the end of the node's log:\n%s", p.LogTail(3000))
		}
	})
	return p
}

// said is what a run of the tool left.
type said struct {
	code        int
	out, errors string
}

// ctl runs the tool as a shell would, with env beside an otherwise empty environment.
func ctl(t *testing.T, env []string, args ...string) said {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), ctlBinary, args...)
	cmd.Env = append([]string{"HOME=" + t.TempDir()}, env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		exit := (*exec.ExitError)(nil)
		require.ErrorAs(t, err, &exit)
	}
	s := said{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
	if t.Failed() {
		t.Logf("duramenctl %s: %d\n%s\n%s", strings.Join(args, " "), s.code, s.out, s.errors)
	}
	return s
}

// push writes one series and insists on success.
func push(t *testing.T, c *client.Client, lset map[string]string, samples []prompb.Sample, histograms ...prompb.Histogram) {
	t.Helper()
	ts := prompb.TimeSeries{Samples: samples, Histograms: histograms}
	for _, name := range slices.Sorted(maps.Keys(lset)) {
		ts.Labels = append(ts.Labels, prompb.Label{Name: name, Value: lset[name]})
	}
	raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{ts}}).Marshal()
	require.NoError(t, err)
	a, err := c.Push(t.Context(), client.V1, raw)
	require.NoError(t, err)
	require.True(t, a.OK(), a)
}
