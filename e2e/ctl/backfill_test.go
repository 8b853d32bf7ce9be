package ctl

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
)

// TestBackfill has promtool make blocks of text, uploads them beside a server that runs, and finds every sample by a query.
func TestBackfill(t *testing.T) {
	dir := t.TempDir()
	n := startNode(t, dir)
	bucket := "-bucket=" + filepath.Join(dir, "data", "bucket")
	c := client.Duramen(n.URL, "team-a")
	defer c.CloseIdle()
	begin := time.Now().Add(-48 * time.Hour).Truncate(2 * time.Hour)
	var got []any
	// The server has looked for the tenant before there is one.
	require.NoError(t, c.Query(t.Context(), "temperature", begin.UnixMilli(), &got))
	require.Empty(t, got)

	const samples = 150 // in two blocks
	var text strings.Builder
	text.WriteString("# TYPE temperature gauge\n")
	for room := range 3 {
		for i := range samples {
			fmt.Fprintf(&text, "temperature{room=\"%d\"} %d %d\n", room, i*room, begin.Add(time.Duration(i)*time.Minute).Unix())
		}
	}
	text.WriteString("# EOF\n")
	source, blocks := filepath.Join(dir, "source.txt"), filepath.Join(dir, "blocks")
	require.NoError(t, os.WriteFile(source, []byte(text.String()), 0o600))
	promtool, err := process.Tool("promtool")
	require.NoError(t, err)
	out, err := exec.CommandContext(t.Context(), promtool, "tsdb", "create-blocks-from", "openmetrics", source, blocks).CombinedOutput()
	require.NoError(t, err, string(out))

	s := ctl(t, nil, "blocks", "upload", bucket, "-tenant=team-a", "-external-label=site=north", "-url="+n.URL, blocks)
	require.Zero(t, s.code, s.out+s.errors)
	require.Contains(t, s.out, "2 blocks sent")
	require.Contains(t, s.out, "queryable now: "+n.URL+" answered for each of 2 blocks")
	series, err := c.Samples(t.Context(), `temperature{site="north"}`, begin.Add(3*time.Hour).UnixMilli(), 4*3600_000)
	require.NoError(t, err)
	require.Len(t, series, 3)
	for _, sr := range series {
		require.Len(t, sr.Values, samples)
		require.Equal(t, begin.UnixMilli(), sr.Values[0].T)
	}

	s = ctl(t, nil, "blocks", "upload", bucket, "-tenant=team-a", "-external-label=site=north", blocks)
	require.Zero(t, s.code, s.out+s.errors)
	require.Contains(t, s.out, "0 blocks sent, 0 B; 2 were there")
	s = ctl(t, nil, "blocks", "check", bucket)
	require.Zero(t, s.code, s.out+s.errors)
	require.Contains(t, s.out, "2 blocks of 1 tenants")
}
