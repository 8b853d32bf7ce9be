package migration

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOpenRecorded opens one bucket with what Thanos and Cortex have once written: below a prefix, in the folder of a tenant,
// and at the root. The answers have to be those that they gave then.
func TestOpenRecorded(t *testing.T) {
	dir := t.TempDir()
	bucket := filepath.Join(dir, "bucket")
	tenants := map[string]struct{ folder, tenant string }{
		"thanos-receive": {"metrics", "metrics"}, "thanos-sidecar": {"", "anonymous"}, "cortex": {"team-a", "team-a"},
	}
	for name, in := range tenants {
		require.NoError(t, os.CopyFS(filepath.Join(bucket, in.folder), os.DirFS(filepath.Join("testdata", name, "bucket"))))
	}
	p := duramen(t, filepath.Join(dir, "duramen"), bucket, "-bucket.root-tenant=anonymous")
	for name, in := range tenants {
		t.Run(name, func(t *testing.T) {
			want := recorded(t, name)
			require.Contains(t, []int{len(sources()), 2 * len(sources())}, want.series())
			c := at(t, p.URL+"/prometheus", in.tenant)
			seen(t, c, in.tenant, want.series())
			want.requireEqual(t, ask(t, c, begin, begin+asked).short())
		})
	}
}
