package bucket_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
)

func TestInstrument(t *testing.T) {
	reg := prometheus.NewRegistry()
	faulty := faultbucket.New(bucket.NewInMemory(), nil)
	b := bucket.Instrument(faulty, reg)
	buckettest.Put(t, b, "t/a", "0123456789")
	require.Equal(t, "0123456789", buckettest.Get(t, b, "t/a"))
	r, err := b.GetRange(t.Context(), "t/a", 2, 3)
	require.NoError(t, err)
	_, err = r.Read(make([]byte, 100))
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.NoError(t, b.PutIfAbsent(t.Context(), "t/b", []byte("1234")))
	require.ErrorIs(t, b.PutIfAbsent(t.Context(), "t/b", nil), bucket.ErrExists)
	_, err = b.Stat(t.Context(), "t/none")
	require.ErrorIs(t, err, bucket.ErrNotFound)
	enough := errors.New("enough")
	require.ErrorIs(t, b.List(t.Context(), "t/", true, func(bucket.Object) error { return enough }), enough)
	faulty.SetPlan(faultbucket.On("Delete", faultbucket.Before))
	require.Error(t, b.Delete(t.Context(), "t/a"))

	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP duramen_bucket_operation_failures_total Operations that failed, a missing object, a lost put-if-absent and a caller who went away not counted; a rise means that the object store or the way to it is in trouble.
# TYPE duramen_bucket_operation_failures_total counter
duramen_bucket_operation_failures_total{operation="delete"} 1
# HELP duramen_bucket_operations_total Operations asked of the object store; a rise without a rise in load means that caches miss.
# TYPE duramen_bucket_operations_total counter
duramen_bucket_operations_total{operation="delete"} 1
duramen_bucket_operations_total{operation="get"} 1
duramen_bucket_operations_total{operation="get_range"} 1
duramen_bucket_operations_total{operation="list"} 1
duramen_bucket_operations_total{operation="put"} 1
duramen_bucket_operations_total{operation="put_if_absent"} 2
duramen_bucket_operations_total{operation="stat"} 1
# HELP duramen_bucket_transferred_bytes_total Bytes of bodies sent to and received from the object store; a rise without a rise in load means that caches miss or that uploads are repeated.
# TYPE duramen_bucket_transferred_bytes_total counter
duramen_bucket_transferred_bytes_total{operation="get"} 10
duramen_bucket_transferred_bytes_total{operation="get_range"} 3
duramen_bucket_transferred_bytes_total{operation="put"} 10
duramen_bucket_transferred_bytes_total{operation="put_if_absent"} 4
`), "duramen_bucket_operations_total", "duramen_bucket_operation_failures_total", "duramen_bucket_transferred_bytes_total"))
}
