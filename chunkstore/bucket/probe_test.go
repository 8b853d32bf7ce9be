package bucket_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
)

// unconditional is a store that ignores the condition, as several S3 look-alikes do.
type unconditional struct{ bucket.Bucket }

func (b unconditional) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	return b.Put(ctx, key, bytes.NewReader(data), int64(len(data)))
}

func TestProbeFindsAnUnconditionalStore(t *testing.T) {
	inner := bucket.NewInMemory()
	require.ErrorIs(t, bucket.Probe(t.Context(), unconditional{inner}), bucket.ErrUnconditional)
	require.Empty(t, buckettest.Keys(t, inner, "", true))
}

func TestProbeOfAFailingStoreProvesNothing(t *testing.T) {
	for _, fault := range []faultbucket.Fault{faultbucket.Before, faultbucket.After} {
		for n := range 2 {
			err := bucket.Probe(t.Context(), faultbucket.New(bucket.NewInMemory(), faultbucket.At(n, fault)))
			require.ErrorIs(t, err, faultbucket.ErrInjected)
			require.NotErrorIs(t, err, bucket.ErrUnconditional)
		}
		err := bucket.Probe(t.Context(), faultbucket.New(bucket.NewInMemory(), faultbucket.On("Delete", fault)))
		require.NoError(t, err, "a scratch object that stays is no reason to refuse")
	}
}
