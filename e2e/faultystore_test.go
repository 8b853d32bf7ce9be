package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/e2e/bucketcheck"
	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/internal/faultproxy"
	"github.com/duramendb/duramen/internal/objectstore"
)

// s3Store is an S3 server with a bucket for one node, and a proxy between the two.
type s3Store struct {
	*objectstore.Server
	proxy  *faultproxy.Proxy
	bucket string
}

func startStore(t *testing.T) *s3Store {
	t.Helper()
	server := objectstore.Start(t, objectstore.Options{})
	return &s3Store{server, faultproxy.Start(t, server.Address(), nil), server.NewBucket(t)}
}

// args are a node's, for the bucket behind the proxy.
func (s *s3Store) args(more ...string) []string {
	return append([]string{
		"-bucket.backend=s3", "-bucket.s3.endpoint=" + s.proxy.Address(), "-bucket.s3.bucket-name=" + s.bucket,
		"-bucket.s3.region=" + objectstore.Region, "-bucket.s3.insecure",
		"-bucket.s3.access-key-id=" + objectstore.AccessKey, "-bucket.s3.secret-access-key=" + objectstore.SecretKey,
	}, more...)
}

// check judges what the bucket holds of a tenant, past the server: its objects are files.
func (s *s3Store) check(t *testing.T, tenant string) bucketcheck.Report {
	t.Helper()
	b, err := bucket.NewFilesystem(s.BucketDir(s.bucket))
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	r, err := bucketcheck.Check(t.Context(), b, tenant)
	require.NoError(t, err)
	return r
}

// TestStoreWithFaults: a node writes, cuts, ships and answers while every fifth request to the S3 server goes wrong, in
// every way there is, and both the node and the server are killed. No answer is ever short, and at the end all that was
// acknowledged is there exactly once, from memory and from the bucket.
func TestStoreWithFaults(t *testing.T) {
	rnd := random(t)
	store := startStore(t)
	store.proxy.SetPlan(faultproxy.Seeded(rnd.Uint64(), 0.2, 0.3))
	n := startNode(t, t.TempDir(), store.args("-bucket.s3.stall-timeout=300ms", "-bucket.s3.part-size-bytes=5242880",
		"-querier.timeout=20s", "-chunkstore.disk-cache.max-bytes=0", "-chunkstore.memory.directories-share=0.0001",
		"-limits.out-of-order-window=3h", "-compactor.interval=0")...) // every version of the manifest adds a block
	c := client.Duramen(n.URL, "faults")
	defer c.CloseIdle()
	l := virtualLedger(t, rnd, 400, 16)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group errgroup.Group
	var queries, flushes tally
	kills := 0
	sendRnd, queryRnd, flushRnd, killRnd, storeRnd := fork(rnd), fork(rnd), fork(rnd), fork(rnd), fork(rnd)
	group.Go(func() error {
		defer cancel()
		return l.sendAll(ctx, c, sendRnd, *duration*3/4)
	})
	group.Go(func() error {
		for wait(ctx, retryEvery) == nil {
			if err := l.checkSomePod(ctx, c, queryRnd, &queries); err != nil {
				return err
			}
		}
		return nil
	})
	group.Go(func() error {
		for wait(ctx, between(flushRnd, 0, time.Second)) == nil {
			flushes.asked++
			if flush(ctx, c) {
				flushes.answered++
			}
		}
		return nil
	})
	group.Go(func() error {
		for wait(ctx, between(killRnd, 2*time.Second, 8*time.Second)) == nil {
			n.Kill()
			kills++
			if err := n.start(); err != nil {
				return err
			}
		}
		return nil
	})
	group.Go(func() error {
		for wait(ctx, between(storeRnd, 2*time.Second, 8*time.Second)) == nil {
			store.Kill()
			_ = wait(ctx, between(storeRnd, 0, time.Second))
			if err := store.Restart(); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, group.Wait())
	t.Logf("%d kills, %d of %d flushes done, %d of %d queries answered, %d requests to the store; faults: %v", kills,
		flushes.answered, flushes.asked, queries.answered, queries.asked, store.proxy.Total(), store.proxy.Faults())
	require.Positive(t, queries.answered)

	store.proxy.SetPlan(nil)
	l.verify(t, c, 1)
	require.Eventually(t, func() bool { return flush(t.Context(), c) }, startTimeout, retryEvery)
	l.verify(t, c, 3)
	n.crash()
	l.verify(t, c, 3)
	r := store.check(t, "faults")
	require.LessOrEqual(t, len(r.Unlisted), kills, "each kill may leave one block behind: %v", r.Unlisted)
	checkBlocks(t, store.BucketDir(store.bucket)+"/faults", l)
}

// tally counts queries.
type tally struct{ asked, answered int }

// checkSomePod asks for everything of one pod. No answer and one that says "not now" are counted; a wrong one is an error.
func (l *ledger) checkSomePod(ctx context.Context, c *client.Client, rnd *rand.Rand, n *tally) error {
	pod := rnd.IntN(l.pods())
	err := l.checkPod(ctx, c, pod, 0, l.scrapes-1, l.lowerFates(pod))
	n.asked++
	var wrong *wrongError
	var failed *client.QueryError
	switch {
	case err == nil:
		n.answered++
	case errors.As(err, &wrong):
		return err
	case errors.As(err, &failed) && failed.Status != http.StatusServiceUnavailable &&
		!strings.Contains(failed.Text, "object is damaged"): // twice in a row
		return err
	}
	return nil
}

// lowerFates is podFates for a query while samples are on their way: what is not sent yet may be there when it is answered.
func (l *ledger) lowerFates(pod int) []fate {
	fates := l.podFates(pod)
	for i, f := range fates {
		if f == neverSent {
			fates[i] = unknown
		}
	}
	return fates
}
