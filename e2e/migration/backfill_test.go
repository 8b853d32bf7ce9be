package migration

import (
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"
)

// TestBackfill: what promtool makes of text is uploaded, and answers as a Prometheus that was given the same blocks.
func TestBackfill(t *testing.T) {
	dir := t.TempDir()
	text, blocks := filepath.Join(dir, "samples.txt"), filepath.Join(dir, "prometheus", "data")
	require.NoError(t, os.WriteFile(text, []byte(openMetrics()), 0o600))
	run(t, tool(t, "promtool"), "tsdb", "create-blocks-from", "openmetrics", text, blocks)

	bucket := filepath.Join(dir, "bucket")
	node := duramen(t, filepath.Join(dir, "duramen"), bucket)
	said := run(t, ctlBinary, "blocks", "upload", "-bucket="+bucket, "-tenant=team-a", "-url="+node.URL, blocks)
	require.Contains(t, said, "queryable now")

	want := prometheus(t, filepath.Join(dir, "prometheus"), "")
	n := requireSame(t, at(t, want.URL, ""), at(t, node.URL+"/prometheus", "team-a"), begin, begin+span)
	require.Equal(t, len(sources())-1, n, "all but the native histogram")
}

// openMetrics writes the floats of all sources as text.
func openMetrics() string {
	var b strings.Builder
	for _, s := range sources() {
		if s.float == nil {
			continue
		}
		var lset []string
		for _, name := range slices.Sorted(maps.Keys(s.labels)) {
			if name != "__name__" {
				lset = append(lset, fmt.Sprintf("%s=%q", name, s.labels[name]))
			}
		}
		for i := range span / interval {
			v, ok := s.float(i)
			if ok && math.Float64bits(v) != value.StaleNaN {
				fmt.Fprintf(&b, "%s{%s} %v %d\n", s.labels["__name__"], strings.Join(lset, ","), v, (begin+int64(i)*interval)/1000)
			}
		}
	}
	return b.String() + "# EOF\n"
}
