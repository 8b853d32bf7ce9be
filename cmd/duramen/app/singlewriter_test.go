package app

import (
	"bytes"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/internal/faultproxy"
	"github.com/duramendb/duramen/internal/objectstore"
)

// TestAStoreWithoutPutIfAbsent: a server that has no conditional puts, or passes over the condition, is refused at the
// start, unless the operator vouches for a single writer; then blocks are listed all the same.
func TestAStoreWithoutPutIfAbsent(t *testing.T) {
	server := objectstore.Start(t, objectstore.Options{})
	name := server.NewBucket(t)
	proxy := faultproxy.Start(t, server.Address(), nil)
	args := []string{
		"-bucket.backend=s3", "-bucket.s3.endpoint=" + proxy.Address(), "-bucket.s3.insecure", "-bucket.s3.bucket-name=" + name,
		"-bucket.s3.region=" + objectstore.Region, "-bucket.s3.access-key-id=" + objectstore.AccessKey,
		"-bucket.s3.secret-access-key=" + objectstore.SecretKey,
	}
	conditional := func(f faultproxy.Fault) faultproxy.Plan {
		return func(r faultproxy.Request) faultproxy.Fault {
			if r.Header.Get("If-None-Match") == "" {
				return faultproxy.Pass()
			}
			return f
		}
	}
	for _, fault := range []faultproxy.Fault{faultproxy.Unconditional(), faultproxy.S3Error(501, "NotImplemented")} {
		proxy.SetPlan(conditional(fault))
		a, err := New(testConfig(t.TempDir(), args...), &bytes.Buffer{})
		require.NoError(t, err)
		err = a.Run(t.Context())
		require.ErrorIs(t, err, bucket.ErrUnconditional, fault.Name)
		require.ErrorContains(t, err, "bucket.single_writer")
	}

	dir, now := t.TempDir(), time.Now().Add(-10*time.Second)
	for i := range 2 {
		n := startNode(t, testConfig(dir, append(args, "-bucket.single-writer")...))
		require.Contains(t, n.log.String(), "does not honour put-if-absent")
		require.Less(t, n.push("/api/v1/push", "", "up", float64(i), now.Add(time.Duration(i)*time.Second)).status, 300)
		res := n.do(http.MethodPost, "/ingester/flush?tenant=anonymous&wait=true", nil)
		require.Equal(t, http.StatusOK, res.status, res.body)
		n.stop()
	}
	versions, err := filepath.Glob(filepath.Join(server.BucketDir(name), "anonymous", "duramen", "manifest", "*"))
	require.NoError(t, err)
	require.Len(t, versions, 2)
	require.True(t, strings.HasSuffix(versions[1], "2"), versions)
	fresh := startNode(t, testConfig(t.TempDir(), append(args, "-bucket.single-writer")...))
	require.Equal(t, "1", fresh.query("", "up", now.Add(time.Second)))
}
