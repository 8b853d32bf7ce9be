package bucket_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/internal/tracing"
	"github.com/duramendb/duramen/internal/tracing/collector"
)

func TestTraced(t *testing.T) {
	buckettest.RunAcceptance(t, func(*testing.T) bucket.Bucket { return bucket.Traced(bucket.NewInMemory()) })
}

// recorded runs work within a trace and returns the spans below its root.
func recorded(t *testing.T, work func(ctx context.Context)) map[string]collector.Span {
	t.Helper()
	c, err := collector.Start(nil)
	require.NoError(t, err)
	defer c.Stop()
	cfg := tracing.Config{OTLPEndpoint: c.Address(), OTLPInsecure: true, ServiceName: "test", SampleRatio: 1}
	p, err := tracing.New(cfg, tracing.Identity{}, time.Now, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	s := p.Service()
	require.NoError(t, s.Start(t.Context()))
	ctx, root := p.Request(t.Context(), http.Header{}, "root")
	work(ctx)
	root.End()
	require.NoError(t, s.Stop())
	spans := map[string]collector.Span{}
	for _, s := range c.Spans() {
		spans[s.Name] = s
	}
	return spans
}

func TestTracedSpans(t *testing.T) {
	faulty := faultbucket.New(bucket.NewInMemory(), nil)
	b := bucket.Traced(faulty)
	spans := recorded(t, func(ctx context.Context) {
		buckettest.Put(t, faulty, "t/a", "0123456789")
		require.NoError(t, b.PutIfAbsent(ctx, "t/b", []byte("1234")))
		body, err := b.GetRange(ctx, "t/a", 2, 3)
		require.NoError(t, err)
		_, err = io.ReadAll(body)
		require.NoError(t, err)
		require.NoError(t, body.Close())
		require.NoError(t, body.Close(), "a span ends once")
		_, err = b.Get(ctx, "t/none")
		require.ErrorIs(t, err, bucket.ErrNotFound)
		faulty.SetPlan(faultbucket.On("Delete", faultbucket.Before))
		require.Error(t, b.Delete(ctx, "t/a", "t/b"))
	})
	require.Equal(t, map[string]string{"key": "t/b", "bytes": "4"}, spans["bucket.put_if_absent"].Attributes)
	require.Equal(t, map[string]string{"key": "t/a", "offset": "2", "bytes": "3"}, spans["bucket.get_range"].Attributes)
	require.Equal(t, map[string]string{"key": "t/none", "result": "not found"}, spans["bucket.get"].Attributes)
	require.False(t, spans["bucket.get"].Failed, "a missing object is an answer")
	require.True(t, spans["bucket.delete"].Failed)
	require.Equal(t, "2", spans["bucket.delete"].Attributes["objects"])
}
