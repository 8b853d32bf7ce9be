package migration

import (
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"
)

// TestBackfill: what promtool makes of text is uploaded, and answers as a Prometheus that was given the same blocks. So does a
// folder with the same samples as Mimir would have them after compactions.
func TestBackfill(t *testing.T) {
	dir := t.TempDir()
	bucket, blocks := filepath.Join(dir, "bucket"), filepath.Join(dir, "prometheus", "data")
	all := blocksOf(t, blocks, sources())
	mimir(t, filepath.Join(bucket, "mimir"), all)

	node := duramen(t, filepath.Join(dir, "duramen"), bucket)
	said := run(t, ctlBinary, "blocks", "upload", "-bucket="+bucket, "-tenant=team-a", "-url="+node.URL, blocks)
	require.Contains(t, said, "queryable now")

	prom := prometheus(t, filepath.Join(dir, "prometheus"), "")
	want := ask(t, at(t, prom.URL, ""), begin, begin+span)
	require.Equal(t, len(sources())-1, want.series(), "all but the native histogram")
	uploaded := at(t, node.URL+"/prometheus", "team-a")
	want.requireEqual(t, ask(t, uploaded, begin, begin+span))

	adopted := at(t, node.URL+"/prometheus", "mimir")
	seen(t, adopted, "mimir", want.series())
	want.requireEqual(t, ask(t, adopted, begin, begin+span))
	listed := ""
	eventually(t, func() error { // marks of blocks are looked at once these are listed
		listed = run(t, ctlBinary, "manifest", "show", "-bucket="+bucket, "mimir")
		if n := strings.Count(listed, "not compacted: "); n != 2 {
			return fmt.Errorf("%d blocks are marked against compaction", n)
		}
		return nil
	})
	require.Equal(t, 6, strings.Count(listed, "shard "))
	require.NotContains(t, listed, "_shard_id__")
}

// openMetrics writes the floats of sources as text.
func openMetrics(of []source) string {
	var b strings.Builder
	for _, s := range of {
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
