package identity

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/internal/errkind"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// process is a process with a memory, for as many lives as guards are made of it.
type process struct {
	Config

	kept string
	log  bytes.Buffer
}

func newProcess() *process {
	p := &process{Config: Config{Create: true, Setting: "bucket.filesystem.directory"}}
	p.Remember = func(id string) error { p.kept = id; return nil }
	return p
}

// guard begins a life.
func (p *process) guard(b bucket.Bucket, now func() time.Time) *Guard {
	p.Known = p.kept
	return New(p.Config, b, now, slog.New(slog.NewTextHandler(&p.log, nil)), nil)
}

func requireRefused(t *testing.T, err error, texts ...string) {
	t.Helper()
	require.ErrorIs(t, err, ErrRefused)
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	require.NotErrorIs(t, err, bucket.ErrNotFound)
	for _, text := range texts {
		require.ErrorContains(t, err, text)
	}
}

// everything returns the errors of all operations.
func everything(ctx context.Context, b bucket.Bucket) (errs []error) {
	_, err := b.Get(ctx, "t/a")
	errs = append(errs, err)
	_, err = b.GetRange(ctx, "t/a", 0, 1)
	errs = append(errs, err)
	_, err = b.Stat(ctx, "t/a")
	errs = append(errs, err, b.Put(ctx, "t/b", bytes.NewReader(nil), 0), b.PutIfAbsent(ctx, "t/c", nil), b.Delete(ctx, "t/a"))
	return append(errs, b.List(ctx, "t/", true, func(bucket.Object) error { return nil }))
}

func TestAcceptance(t *testing.T) {
	buckettest.RunAcceptance(t, func(t *testing.T) bucket.Bucket {
		inner := bucket.NewInMemory()
		return hidden{newProcess().guard(inner, time.Now)}
	})
}

// hidden leaves the identity out of listings, which the suite does not expect.
type hidden struct{ bucket.Bucket }

func (h hidden) List(ctx context.Context, prefix string, recursive bool, fn func(bucket.Object) error) error {
	return h.Bucket.List(ctx, prefix, recursive, func(o bucket.Object) error {
		if o.Key == Key || o.Key == "~duramen/" {
			return nil
		}
		return fn(o)
	})
}

// TestAnotherBucketIsRefused: one without an identity, and one with another; nothing is asked of either but its identity.
func TestAnotherBucketIsRefused(t *testing.T) {
	first, empty, other := bucket.NewInMemory(), bucket.NewInMemory(), bucket.NewInMemory()
	buckettest.Put(t, first, "t/a", "x")
	otherID, err := Create(t.Context(), other, time.Now())
	require.NoError(t, err)
	p := newProcess()
	require.NoError(t, p.guard(first, time.Now).Verify(t.Context()))
	id := p.kept
	require.NotEmpty(t, id)

	for b, text := range map[bucket.Bucket]string{empty: "it has no identity", other: "its identity is " + otherID} {
		ops := faultbucket.New(b, nil)
		g := p.guard(ops, time.Now)
		for _, err := range everything(t.Context(), g) {
			requireRefused(t, err, text, "bucket.filesystem.directory", "bucket.accept_new_identity="+id)
		}
		for _, op := range ops.Ops() {
			require.Equal(t, "Get "+Key, op.Method+" "+op.Key)
		}
		require.InDelta(t, 1, testutil.ToFloat64(g.metrics.refused), 0)
		require.Equal(t, id, p.kept)
	}
	require.Equal(t, "x", buckettest.Get(t, p.guard(first, time.Now), "t/a"))
}

// TestAnotherBucketIsAcceptedOnce: the former one's name opens for one other bucket, with or without an identity.
func TestAnotherBucketIsAcceptedOnce(t *testing.T) {
	p := newProcess()
	require.NoError(t, p.guard(bucket.NewInMemory(), time.Now).Verify(t.Context()))
	p.Leave = p.kept
	empty := bucket.NewInMemory()
	require.NoError(t, p.guard(empty, time.Now).Verify(t.Context()))
	id, err := Find(t.Context(), empty)
	require.NoError(t, err)
	require.Equal(t, id, p.kept)
	require.NotEqual(t, p.Leave, id)
	require.NoError(t, p.guard(empty, time.Now).Verify(t.Context()))
	requireRefused(t, p.guard(bucket.NewInMemory(), time.Now).Verify(t.Context()), "bucket.accept_new_identity="+id)

	other := bucket.NewInMemory()
	otherID, err := Create(t.Context(), other, time.Now())
	require.NoError(t, err)
	p.Leave = id
	require.NoError(t, p.guard(other, time.Now).Verify(t.Context()))
	require.Equal(t, otherID, p.kept)
}

// TestABucketThatIsAwayIsLookedAtWhenItIsBack, before anything else is asked of it.
func TestABucketThatIsAwayIsLookedAtWhenItIsBack(t *testing.T) {
	p := newProcess()
	require.NoError(t, p.guard(bucket.NewInMemory(), time.Now).Verify(t.Context()))
	away := faultbucket.New(bucket.NewInMemory(), faultbucket.On("Get", faultbucket.Before))
	g := p.guard(away, time.Now)
	require.ErrorIs(t, g.Verify(t.Context()), faultbucket.ErrInjected)
	for _, err := range everything(t.Context(), g) {
		require.ErrorIs(t, err, faultbucket.ErrInjected)
	}
	away.SetPlan(nil)
	for _, err := range everything(t.Context(), g) {
		requireRefused(t, err)
	}
}

// TestABucketThatIsEmptiedMeanwhile: no listing answers that there is nothing, and no manifest is made anew.
func TestABucketThatIsEmptiedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, inner := newProcess(), bucket.NewInMemory()
		g := p.guard(inner, time.Now)
		require.NoError(t, g.PutIfAbsent(t.Context(), "t/a", nil))
		identity := buckettest.Get(t, inner, Key)
		list := func() error { return g.List(t.Context(), "t/", false, func(bucket.Object) error { return nil }) }
		require.NoError(t, list())

		require.NoError(t, inner.Delete(t.Context(), Key, "t/a"))
		time.Sleep(swapTrust + 1)
		requireRefused(t, g.PutIfAbsent(t.Context(), "t/b", nil))
		require.Empty(t, buckettest.Keys(t, inner, "", true))

		buckettest.Put(t, inner, Key, identity)
		require.NoError(t, g.Verify(t.Context()))
		require.NoError(t, g.List(t.Context(), "t/", false, nil), "nothing is an answer of the right bucket")
		require.NoError(t, inner.Delete(t.Context(), Key))
		requireRefused(t, list())
	})
}

// TestAFullBucketIsUsed: it takes no identity and has been used before there was one.
func TestAFullBucketIsUsed(t *testing.T) {
	p, inner := newProcess(), bucket.NewInMemory()
	buckettest.Put(t, inner, "t/a", "x")
	full := faultbucket.New(inner, faultbucket.On("PutIfAbsent", faultbucket.Before))
	g := p.guard(full, time.Now)
	require.Equal(t, "x", buckettest.Get(t, g, "t/a"))
	require.NoError(t, g.Verify(t.Context()))
	require.Empty(t, p.kept)
	require.Equal(t, 1, strings.Count(p.log.String(), "no identity yet"), "said once")
	full.SetPlan(nil)
	require.False(t, g.due(lookAgain))
	require.True(t, g.due(lookEvery))
	require.NoError(t, g.Verify(t.Context()))
	require.NotEmpty(t, p.kept)
}

// TestAnEmptyBucketOfAUsedProcess: who comes from a release without identities over a volume that is not mounted is not bound
// to what is there instead; who has not shipped anything yet goes on, and gives an identity when it finds its blocks there.
func TestAnEmptyBucketOfAUsedProcess(t *testing.T) {
	p, inner := newProcess(), bucket.NewInMemory()
	p.Used = true
	buckettest.Put(t, inner, "~duramen/probe/a", "")
	g := p.guard(inner, time.Now)
	require.NoError(t, g.Verify(t.Context()))
	require.NoError(t, g.List(t.Context(), "t/", true, nil))
	require.Empty(t, p.kept)
	require.Equal(t, []string{"~duramen/probe/a"}, buckettest.Keys(t, inner, "", true))
	require.Contains(t, p.log.String(), "it was empty although")

	require.NoError(t, g.Put(t.Context(), "t/a", strings.NewReader("x"), 1))
	require.NoError(t, g.Verify(t.Context()))
	require.Empty(t, p.kept, "it has put that there itself")
	require.NoError(t, p.guard(inner, time.Now).Verify(t.Context()))
	require.NotEmpty(t, p.kept)
	p.Leave = p.kept // chosen, not met by chance
	require.NoError(t, p.guard(bucket.NewInMemory(), time.Now).Verify(t.Context()))
	require.NotEqual(t, p.Leave, p.kept)

	p = newProcess()
	p.Used = true
	unlisted := faultbucket.New(bucket.NewInMemory(), faultbucket.On("List", faultbucket.Before))
	require.NoError(t, p.guard(unlisted, time.Now).Verify(t.Context()))
	require.Empty(t, p.kept, "not known to have something")
}

// TestAMemoryThatFails: the bucket is used, and remembered with the next look.
func TestAMemoryThatFails(t *testing.T) {
	p := newProcess()
	keep := p.Remember
	p.Remember = func(string) error { return errors.New("disk full") }
	g := p.guard(bucket.NewInMemory(), time.Now)
	require.NoError(t, g.Verify(t.Context()))
	require.Contains(t, p.log.String(), "cannot be kept")
	g.cfg.Remember = keep
	require.NoError(t, g.Verify(t.Context()))
	require.NotEmpty(t, p.kept)
}

// TestOneLookForAll: whoever comes while a look goes on shares the next one.
func TestOneLookForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowBucket{Bucket: bucket.NewInMemory()}
		_, err := Create(t.Context(), slow.Bucket, time.Now())
		require.NoError(t, err)
		for _, fails := range []bool{true, false} {
			g := newProcess().guard(slow, time.Now)
			slow.looks, slow.fails = 0, fails
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if err := g.Verify(t.Context()); (err != nil) != fails {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			require.LessOrEqual(t, slow.looks, 2)
		}
	})
}

// slowBucket takes a second for a Get.
type slowBucket struct {
	bucket.Bucket

	looks int
	fails bool
}

func (b *slowBucket) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	time.Sleep(time.Second)
	b.looks++
	if b.fails {
		return nil, errors.New("away")
	}
	return b.Bucket.Get(ctx, key)
}
