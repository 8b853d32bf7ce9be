package app

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDiskCacheIsForBucketsThatAreElsewhere: a bucket on the filesystem is on a local disk itself.
func TestDiskCacheIsForBucketsThatAreElsewhere(t *testing.T) {
	s3 := []string{"-bucket.backend=s3", "-bucket.s3.endpoint=127.0.0.1:1", "-bucket.s3.bucket-name=b"}
	for name, c := range map[string]struct {
		args []string
		want bool
	}{
		"filesystem":            {nil, false},
		"filesystem, asked for": {[]string{"-chunkstore.disk-cache.max-bytes=100000000"}, true},
		"S3":                    {s3, true},
		"S3, not wanted":        {append([]string{"-chunkstore.disk-cache.max-bytes=0"}, s3...), false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			a, err := New(testConfig(dir, c.args...), &bytes.Buffer{})
			require.NoError(t, err)
			require.NoError(t, a.close())
			if lock := filepath.Join(dir, "chunkstore", "cache", "lock"); c.want {
				require.FileExists(t, lock)
			} else {
				require.NoFileExists(t, lock)
			}
		})
	}
}
