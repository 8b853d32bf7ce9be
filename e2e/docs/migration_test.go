package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/internal/checkout"
)

const migration = "docs/migration.md"

// theirs puts a bucket that a peer has once written at a place below the working directory.
func (s *story) theirs(name, to string) {
	s.t.Helper()
	root, err := checkout.Top()
	require.NoError(s.t, err)
	from := filepath.Join(root, "e2e", "migration", "testdata", name, "bucket")
	require.NoError(s.t, os.CopyFS(filepath.Join(s.work, to), os.DirFS(from)))
}

// migrated starts a node with the configuration that the page has, and waits until it has n series of a tenant.
func (s *story) migrated(tenant string, n int) {
	s.t.Helper()
	s.node(s.config() + "manifest:\n  reconcile_interval: 1s\n")
	c := client.Duramen(s.duramen.URL, tenant)
	defer c.CloseIdle()
	have := 0
	require.Eventually(s.t, func() bool {
		var series []map[string]string
		path := "/api/v1/series?start=2024-01-08T00:00:00Z&end=2024-01-08T04:00:00Z&match[]=%7B__name__%3D~%22.%2B%22%7D"
		if err := c.Ask(s.t.Context(), path, &series); err != nil {
			s.t.Log(err)
		}
		have = len(series)
		return have == n
	}, 60*time.Second, 50*time.Millisecond, "of %d series", n)
}

func TestFromCortex(t *testing.T) {
	s := tellOf(t, migration, "from Cortex")
	s.theirs("cortex", "cortex-bucket/team-a")
	s.migrated("team-a", 8)
	said := s.step()
	require.Equal(t, 2, strings.Count(said, "another program"), "blocks")
	require.Contains(t, said, "2 blocks listed, 0 lack objects, 2 in the bucket are not listed")
	require.Contains(t, s.step(), " 0 faults in 0 blocks")
	require.Contains(t, s.step(), "  240\n")
}

func TestFromThanos(t *testing.T) {
	s := tellOf(t, migration, "from Thanos")
	s.theirs("thanos-sidecar", "thanos-bucket")
	s.migrated("anonymous", 16)
	require.Equal(t, 4, strings.Count(s.step(), `{cluster="eu-1", replica=`), "external labels of blocks")
}

func TestGoingBack(t *testing.T) {
	s := tellOf(t, migration, "going back")
	s.node("")
	s.write(20)
	s.step()
	require.Contains(t, s.step(), "BLOCK ULID")
	blocks, err := filepath.Glob(filepath.Join(s.work, "prometheus-data", "01*", "meta.json"))
	require.NoError(t, err)
	require.NotEmpty(t, blocks, fmt.Sprint(blocks))
}
