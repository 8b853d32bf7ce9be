package identity

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
)

// TestAReaderFollowsItsCluster: a process without a memory takes the word of the ingesters, also when that changes.
func TestAReaderFollowsItsCluster(t *testing.T) {
	b := bucket.NewInMemory()
	var word string
	cfg := Config{Setting: "bucket.s3.bucket_name", Cluster: func() (string, string) { return word, "ingester a" }}
	g := New(cfg, b, time.Now, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, g.Verify(t.Context()), "nobody knows anything: as before there were identities")
	require.Empty(t, g.known)

	word = "X"
	require.False(t, New(cfg, b, time.Now, slog.New(slog.DiscardHandler), nil).due(time.Hour), "who uses it not asks it nothing")
	require.True(t, g.due(0))
	requireRefused(t, g.Verify(t.Context()), "it has no identity", "ingester a is X", "bucket.s3.bucket_name")
	id, err := Create(t.Context(), b, time.Now())
	require.NoError(t, err)
	requireRefused(t, g.Verify(t.Context()), "its identity is "+id)
	word = ""
	requireRefused(t, g.Verify(t.Context()), "X") // the word is not forgotten with who gave it
	word = id
	require.NoError(t, g.Verify(t.Context()))
	require.False(t, g.due(0))
}

// TestAnIngesterOnAnotherBucketThanItsCluster: a new one forgets it, so that the right bucket is no other one; one that
// remembers keeps to what it has.
func TestAnIngesterOnAnotherBucketThanItsCluster(t *testing.T) {
	right, wrong := bucket.NewInMemory(), bucket.NewInMemory()
	rightID, err := Create(t.Context(), right, time.Now())
	require.NoError(t, err)
	var word string
	p := newProcess()
	p.Cluster = func() (string, string) { return word, "ingester a" }
	g := p.guard(wrong, time.Now)
	require.NoError(t, g.Verify(t.Context()))
	wrongID := p.kept
	require.NotEmpty(t, wrongID)
	word = rightID
	require.Empty(t, g.tells(), "the cluster contradicts")
	requireRefused(t, g.Verify(t.Context()), "ingester a is "+rightID)
	require.Empty(t, g.tells())
	require.Empty(t, p.kept)
	require.NoError(t, p.guard(right, time.Now).Verify(t.Context()))
	require.Equal(t, rightID, p.kept)

	word = wrongID
	g = p.guard(right, time.Now)
	requireRefused(t, g.Verify(t.Context()), "ingester a is "+wrongID)
	require.Equal(t, rightID, g.tells(), "it is remembered")
	requireRefused(t, p.guard(wrong, time.Now).Verify(t.Context()), "its identity is "+wrongID,
		"that of the bucket before is "+rightID)
	require.Equal(t, rightID, p.kept)

	// And one that has nothing yet does not give the wrong bucket an identity when it can know better.
	fresh, empty := newProcess(), bucket.NewInMemory()
	fresh.Cluster = p.Cluster
	requireRefused(t, fresh.guard(empty, time.Now).Verify(t.Context()), "it has no identity")
}

// TestAMemberThatBeginsWhileAllAreRefused: no ingester has its bucket, and the empty one in its place answers nobody.
func TestAMemberThatBeginsWhileAllAreRefused(t *testing.T) {
	inner := bucket.NewInMemory()
	ingester := newProcess()
	require.NoError(t, ingester.guard(inner, time.Now).Verify(t.Context()))
	empty := bucket.NewInMemory()
	away := faultbucket.New(inner, faultbucket.On("Get", faultbucket.Before))
	for name, b := range map[string]bucket.Bucket{"refused": empty, "away since the start": away} {
		g := ingester.guard(b, time.Now)
		require.Error(t, g.Verify(t.Context()), name)
		reader := Config{Cluster: func() (string, string) { return g.tells(), "ingester a" }}
		err := New(reader, empty, time.Now, slog.New(slog.DiscardHandler), nil).Verify(t.Context())
		requireRefused(t, err, "ingester a is "+ingester.kept)
	}
}

// TestRun: how often the bucket is asked, in fake time, and that the cluster is told.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ops := faultbucket.New(bucket.NewInMemory(), nil)
		var told atomic.Value // Run goes on while it is looked at
		p := newProcess()
		p.Announce = func(id string) { told.Store(id) }
		g := p.guard(ops, time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		synctest.Wait()
		require.Equal(t, p.kept, told.Load())
		before := len(ops.Ops())
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		require.InDelta(t, 24*60, len(ops.Ops())-before, 2, "a look a minute")

		identity := buckettest.Get(t, ops, Key)
		require.NoError(t, ops.Delete(t.Context(), Key))
		time.Sleep(lookEvery + tellEvery)
		synctest.Wait()
		require.Equal(t, p.kept, told.Load(), "who begins now has to hear it")
		_, refused := g.State()
		requireRefused(t, refused)
		buckettest.Put(t, ops, Key, identity)
		time.Sleep(lookAgain + tellEvery)
		synctest.Wait()
		require.Equal(t, p.kept, told.Load())
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}
