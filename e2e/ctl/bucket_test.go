package ctl

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
	"github.com/duramendb/duramen/internal/objectstore"
)

// awsEnv is what the tool needs in its environment for the test's S3 server.
func awsEnv() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + objectstore.AccessKey, "AWS_SECRET_ACCESS_KEY=" + objectstore.SecretKey}
}

// s3URL names a bucket of the test's S3 server.
func s3URL(s *objectstore.Server, name string) string {
	return fmt.Sprintf("s3://%s/?endpoint=%s&region=%s&insecure=true&lookup=path", name, s.Address(), objectstore.Region)
}

// s3Args are the settings of a node on it.
func s3Args(s *objectstore.Server, name string) []string {
	return []string{
		"-bucket.backend=s3", "-bucket.s3.bucket-name=" + name, "-bucket.s3.endpoint=" + s.Address(),
		"-bucket.s3.region=" + objectstore.Region, "-bucket.s3.insecure", "-bucket.s3.lookup=path",
		"-bucket.s3.access-key-id=" + objectstore.AccessKey, "-bucket.s3.secret-access-key=" + objectstore.SecretKey,
	}
}

// fill writes some series for a tenant and ships them.
func fill(t *testing.T, n *process.Process, tenant string, from time.Time) {
	t.Helper()
	c := client.Duramen(n.URL, tenant)
	defer c.CloseIdle()
	for i := range 5 {
		var samples []prompb.Sample
		for s := range 30 {
			samples = append(samples, prompb.Sample{Timestamp: from.Add(time.Duration(s) * time.Second).UnixMilli(), Value: float64(i * s)})
		}
		push(t, c, map[string]string{"__name__": "m", "i": fmt.Sprint(i)}, samples)
	}
	a, err := c.Post(t.Context(), "/ingester/flush?wait=true&tenant="+tenant)
	require.NoError(t, err)
	require.True(t, a.OK(), a)
}

// TestTenantsAndBlocks looks at a node and its bucket, on a disk and on an S3 server, while the node runs.
func TestTenantsAndBlocks(t *testing.T) {
	s3 := objectstore.Start(t, objectstore.Options{})
	dir := t.TempDir()
	for name, tt := range map[string]struct {
		args   []string
		bucket string
		files  string
	}{
		"filesystem": {nil, filepath.Join(dir, "filesystem", "data", "bucket"), filepath.Join(dir, "filesystem", "data", "bucket")},
		"s3":         {s3Args(s3, "metrics"), s3URL(s3, "metrics"), s3.BucketDir("metrics")},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "s3" {
				require.NoError(t, os.Mkdir(tt.files, 0o755))
			}
			n := startNode(t, filepath.Join(dir, name), tt.args...)
			now := time.Now().Truncate(time.Second)
			for _, tenant := range []string{"team-a", "team-b"} {
				fill(t, n, tenant, now.Add(-time.Hour))
			}
			fill(t, n, "team-a", now.Add(-time.Minute))

			s := ctl(t, nil, "tenants", "-url="+n.URL)
			require.Zero(t, s.code, s.errors)
			require.Regexp(t, `(?m)^team-a +open +\d+ `, s.out)
			s = ctl(t, awsEnv(), "tenants", "-bucket="+tt.bucket, "-format=json")
			require.Zero(t, s.code, s.errors)
			var listed struct {
				Tenants []struct {
					Tenant  string
					Samples int
					Blocks  int
				}
			}
			require.NoError(t, json.Unmarshal([]byte(s.out), &listed))
			require.Len(t, listed.Tenants, 2)
			require.Equal(t, 300, listed.Tenants[0].Samples)
			blocks := listed.Tenants[0].Blocks + listed.Tenants[1].Blocks

			s = ctl(t, awsEnv(), "blocks", "list", "-bucket="+tt.bucket)
			require.Zero(t, s.code, s.errors)
			require.Regexp(t, `(?m)^team-b .* 150 .* listed$`, s.out)
			s = ctl(t, awsEnv(), "blocks", "check", "-bucket="+tt.bucket)
			require.Zero(t, s.code, s.out+s.errors)
			require.Contains(t, s.out, fmt.Sprintf("%d blocks of 2 tenants", blocks))

			files, err := filepath.Glob(filepath.Join(tt.files, "team-b", "*", "chunks", "000001"))
			require.NoError(t, err)
			data, err := os.ReadFile(files[0])
			require.NoError(t, err)
			data[len(data)/2] ^= 1
			require.NoError(t, os.WriteFile(files[0], data, 0o600))
			s = ctl(t, awsEnv(), "blocks", "check", "-bucket="+tt.bucket)
			require.Equal(t, 3, s.code)
			require.Contains(t, s.out, "/chunks/000001 at byte ")
			require.Contains(t, s.out, "checksum of the chunk differs")
			s = ctl(t, awsEnv(), "blocks", "check", "-bucket="+tt.bucket, "team-a")
			require.Zero(t, s.code, s.out)
		})
	}
	s := ctl(t, []string{"AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=y"}, "tenants", "-bucket="+s3URL(s3, "metrics"))
	require.Equal(t, 1, s.code)
	require.NotContains(t, s.errors, "AWS_SECRET")
	s3.Kill()
	s = ctl(t, awsEnv(), "tenants", "-bucket="+s3URL(s3, "metrics"))
	require.Equal(t, 1, s.code, s.out)
}
