package bucket_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
)

func TestGateOpensWithTheFirstProbeThatSucceeds(t *testing.T) {
	inner := bucket.NewInMemory()
	faulty := faultbucket.New(inner, faultbucket.On("PutIfAbsent", faultbucket.Before))
	g := bucket.NewGate(faulty)
	require.ErrorIs(t, g.Probe(t.Context()), faultbucket.ErrInjected)
	require.ErrorIs(t, g.PutIfAbsent(t.Context(), "key", nil), faultbucket.ErrInjected)

	faulty.SetPlan(nil)
	require.NoError(t, g.PutIfAbsent(t.Context(), "key", nil))
	require.ErrorIs(t, g.PutIfAbsent(t.Context(), "key", nil), bucket.ErrExists)
	before := len(faulty.Ops())
	require.NoError(t, g.Probe(t.Context()))
	require.Len(t, faulty.Ops(), before, "an open gate asks nothing")
	require.Equal(t, []string{"key"}, buckettest.Keys(t, inner, "", true))
}

func TestGateStaysClosedOnAnUnconditionalStore(t *testing.T) {
	inner := bucket.NewInMemory()
	g := bucket.NewGate(unconditional{inner})
	require.ErrorIs(t, g.PutIfAbsent(t.Context(), "key", nil), bucket.ErrUnconditional)
	require.Empty(t, buckettest.Keys(t, inner, "", true))
}
