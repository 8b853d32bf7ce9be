package migration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
)

// objstore writes the file that tells Thanos of a bucket on the filesystem, and returns the flag that names it.
func objstore(t *testing.T, bucket, prefix string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "objstore.yml")
	text := fmt.Sprintf("type: FILESYSTEM\nconfig:\n  directory: %s\nprefix: %q\n", bucket, prefix)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return "--objstore.config-file=" + file
}

// thanos starts one of its components. The first of the addresses answers readiness.
func thanos(t *testing.T, dir, component string, args ...string) (p *process.Process, grpc string) {
	t.Helper()
	http, grpc := address(t), address(t)
	return start(t, process.Spec{
		Name: "thanos " + component, Binary: peer(t, "thanos"), Dir: dir, URL: "http://" + http, Ready: "/-/ready",
		Args: append([]string{component, "--http-address=" + http, "--grpc-address=" + grpc, "--log.level=warn"}, args...),
	}), grpc
}

// askThanos starts a store and a query component on a bucket.
func askThanos(t *testing.T, dir, bucket, prefix string) *client.Client {
	t.Helper()
	_, grpc := thanos(t, filepath.Join(dir, "store"), "store", objstore(t, bucket, prefix), "--data-dir="+filepath.Join(dir, "store", "data"))
	p, _ := thanos(t, filepath.Join(dir, "query"), "query", "--endpoint="+grpc)
	c := at(t, p.URL, "")
	eventually(t, func() error {
		var got []client.Series
		err := c.Query(t.Context(), `{__name__=~".+"}[6h]`, begin+span-1, &got)
		if err == nil && len(got) == 0 {
			err = errors.New("thanos query sees no series")
		}
		return err
	})
	return c
}
