package bucket_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestInMemory(t *testing.T) {
	buckettest.RunAcceptance(t, func(*testing.T) bucket.Bucket { return bucket.NewInMemory() })
}

func TestFilesystem(t *testing.T) {
	buckettest.RunAcceptance(t, func(t *testing.T) bucket.Bucket { return openFilesystem(t, t.TempDir()) })
}

func TestInstrumented(t *testing.T) {
	buckettest.RunAcceptance(t, func(*testing.T) bucket.Bucket {
		return bucket.Instrument(bucket.NewInMemory(), prometheus.NewRegistry())
	})
}

func openFilesystem(t *testing.T, dir string) *bucket.Filesystem {
	t.Helper()
	b, err := bucket.NewFilesystem(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}
