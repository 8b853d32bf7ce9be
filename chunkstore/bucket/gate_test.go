package bucket_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
)

func TestGateOpensWithTheFirstProbeThatSucceeds(t *testing.T) {
	inner := bucket.NewInMemory()
	faulty := faultbucket.New(inner, faultbucket.On("PutIfAbsent", faultbucket.Before))
	g := bucket.NewGate(faulty, false, slog.New(slog.DiscardHandler))
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
	g := bucket.NewGate(unconditional{inner}, false, slog.New(slog.DiscardHandler))
	require.ErrorIs(t, g.PutIfAbsent(t.Context(), "key", nil), bucket.ErrUnconditional)
	require.Empty(t, buckettest.Keys(t, inner, "", true))
}

// TestGateOfASingleWriter: on a store without put-if-absent the gate itself keeps a key from being overwritten, also
// between goroutines, and says once that it has to.
func TestGateOfASingleWriter(t *testing.T) {
	var log bytes.Buffer
	inner := bucket.NewInMemory()
	g := bucket.NewGate(unconditional{inner}, true, slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, g.Probe(t.Context()))
	for round := range 20 {
		var won atomic.Int32
		var wg sync.WaitGroup
		key := fmt.Sprintf("key-%d", round)
		for i := range 4 {
			wg.Go(func() {
				err := g.PutIfAbsent(t.Context(), key, fmt.Append(nil, i))
				if err == nil {
					won.Add(1)
					return
				}
				if !errors.Is(err, bucket.ErrExists) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, won.Load())
	}
	require.Equal(t, 1, strings.Count(log.String(), "level=WARN"), log.String())
}

// TestGateOfASingleWriterTrustsNoFailedLook: what cannot be looked at may be taken.
func TestGateOfASingleWriterTrustsNoFailedLook(t *testing.T) {
	inner := bucket.NewInMemory()
	faulty := faultbucket.New(unconditional{inner}, nil)
	g := bucket.NewGate(faulty, true, slog.New(slog.DiscardHandler))
	require.NoError(t, g.Probe(t.Context()))
	faulty.SetPlan(faultbucket.On("Stat", faultbucket.Before))
	require.ErrorIs(t, g.PutIfAbsent(t.Context(), "key", nil), faultbucket.ErrInjected)
	require.Empty(t, buckettest.Keys(t, inner, "", true))
}
