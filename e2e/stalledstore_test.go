package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/internal/faultproxy"
	"github.com/duramendb/duramen/internal/seriesgen"
)

const (
	// stalledTimeout is the timeout of queries in the story of a store that stands still, stalledShutdown that of a stop.
	stalledTimeout  = 2 * time.Second
	stalledShutdown = 2 * time.Second
	// crowd is how many queries need the store at the same time.
	crowd = 64
	// presentEvery is the pause between writes, and the interval of their samples, so that none lies in the future.
	presentEvery = 20 * time.Millisecond
)

// stalledPhase is how long the story lives with a store that stands still, three times.
func stalledPhase() time.Duration { return *duration / 8 }

// TestStoreStandsStill: no request to the S3 server gets an answer. Writes and queries over recent samples go on beside a
// crowd of queries that need the store, each of which is answered 503 with the bucket's name within its timeout. Nothing
// piles up; SIGTERM ends the node in its time; a start needs no store; and when the store is back, so is everything.
func TestStoreStandsStill(t *testing.T) {
	store := startStore(t)
	n := startNode(t, t.TempDir(), store.args("-querier.timeout="+stalledTimeout.String(),
		"-server.shutdown-timeout="+stalledShutdown.String(), "-bucket.s3.stall-timeout=5s", "-chunkstore.disk-cache.max-bytes=0",
		"-chunkstore.memory.directories-share=0", "-chunkstore.memory.pages-share=0")...)
	c := client.Duramen(n.URL, "stalled")
	defer c.CloseIdle()
	s := newStalledStory(t, store, c)
	before, err := c.Metric(t.Context(), "go_goroutines")
	require.NoError(t, err)

	store.proxy.SetPlan(faultproxy.Always(faultproxy.Stall(nil)))
	for _, crowded := range []bool{true, false} {
		n := s.next
		s.failed.Store(0)
		s.slotless.Store(0)
		require.NoError(t, s.live(t, crowded))
		t.Logf("%d writes and as many queries over recent samples; %d queries named the bucket, %d got no slot",
			s.next-n, s.failed.Load(), s.slotless.Load())
		require.Greater(t, s.next, n+1)
		require.Positive(t, s.failed.Load())
		require.True(t, crowded || s.slotless.Load() == 0, "a query with a slot does not name the bucket")
	}
	require.Eventually(t, func() bool {
		c.CloseIdle()
		after, err := c.Metric(t.Context(), "go_goroutines")
		return err == nil && after < before+10
	}, startTimeout, retryEvery, "goroutines pile up")

	// A stop, while queries and a flush wait for the store.
	var waiting errgroup.Group
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range crowd {
		waiting.Go(func() error { _ = s.old(ctx); return nil })
	}
	waiting.Go(func() error { flush(ctx, c); return nil })
	require.Eventually(t, func() bool { return store.proxy.Active() > 1 }, startTimeout, retryEvery)
	begin := time.Now()
	require.NoError(t, n.Terminate(startTimeout))
	t.Logf("stopped within %s", time.Since(begin))
	require.Less(t, time.Since(begin), stalledShutdown+5*time.Second)
	cancel()
	require.NoError(t, waiting.Wait())

	require.NoError(t, n.start(), "a start needs no store")
	c.Warned = func(text string) {
		if !strings.Contains(text, "deletions of series are as of") {
			t.Error(text)
		}
	}
	require.NoError(t, s.live(t, false))
	store.proxy.SetPlan(nil)
	require.Eventually(t, func() bool { return flush(t.Context(), c) }, startTimeout, retryEvery)
	c.Warned = nil
	s.past.verify(t, c, 1)
	s.present.verify(t, c, 1)
	store.check(t, c.Tenant)
}

// stalledStory is a node with samples in the bucket and in memory. What lies before the tenant's folder was made is always
// read from the bucket, for a lost disk may have held it: all of the past is there, and the present is written now.
type stalledStory struct {
	past, present *ledger
	c             *client.Client
	store         *s3Store
	next          int          // scrape of the present to send
	failed        atomic.Int64 // queries that named the bucket
	slotless      atomic.Int64 // queries that ran out of time before they ran
}

func newStalledStory(t *testing.T, store *s3Store, c *client.Client) *stalledStory {
	t.Helper()
	rnd := random(t)
	s := &stalledStory{past: virtualLedger(t, rnd, 100, 8), c: c, store: store}
	for scrape := range s.past.scrapes {
		ok, err := s.past.pushOnce(t.Context(), c, scrape, 0)
		require.NoError(t, err)
		require.True(t, ok)
	}
	require.True(t, flush(t.Context(), c))
	require.Eventually(t, func() bool { // on a busy machine a query may not be done in its short time
		return s.past.checkPod(t.Context(), c, 0, 0, s.past.scrapes-1, s.past.podFates(0)) == nil
	}, startTimeout, retryEvery)
	s.present = newLedger(t, seriesgen.Config{
		Seed: rnd.Uint64(), Series: 8 * seriesgen.SeriesPerPod, Start: client.Now(), Interval: presentEvery,
	}, 100+int(3*stalledPhase()/presentEvery), 8)
	return s
}

// write sends a scrape of now and asks for the last ones.
func (s *stalledStory) write(ctx context.Context) error {
	begin, scrape := time.Now(), s.next
	s.next++
	ok, err := s.present.pushOnce(ctx, s.c, scrape, 0)
	if err != nil || !ok {
		return errors.Join(err, fmt.Errorf("scrape %d was not acknowledged", scrape))
	}
	pod := scrape % s.present.pods()
	if err := s.present.checkPod(ctx, s.c, pod, max(0, scrape-10), scrape, s.present.podFates(pod)); err != nil {
		return err
	}
	if d := time.Since(begin); d > stalledTimeout {
		return fmt.Errorf("a write and a query of what is recent took %s", d)
	}
	return nil
}

// live writes, and asks for what was written, for a part of the story's duration, beside a crowd that asks for the past or
// beside a single such query. Each write and recent query has to be done sooner than a query is given up.
func (s *stalledStory) live(t *testing.T, crowded bool) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stalledPhase())
	defer cancel()
	var group errgroup.Group
	for range map[bool]int{true: crowd, false: 1}[crowded] {
		group.Go(func() error {
			for {
				if err := s.old(t.Context()); err != nil || ctx.Err() != nil {
					return err
				}
			}
		})
	}
	group.Go(func() error {
		for wait(ctx, presentEvery) == nil {
			if err := s.write(t.Context()); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

// old asks for the past of a pod, which needs the store. An answer other than that it is away is an error.
func (s *stalledStory) old(ctx context.Context) error {
	begin := time.Now()
	err := s.past.checkPod(ctx, s.c, 1, 0, s.past.scrapes-1, s.past.podFates(1))
	var failed *client.QueryError
	switch took := time.Since(begin); {
	case !errors.As(err, &failed) || failed.Status != http.StatusServiceUnavailable:
		return fmt.Errorf("a query of the past: %w", err)
	case took > stalledTimeout+5*time.Second: // the machine may be busy
		return fmt.Errorf("a query was given up after %s", took)
	}
	if strings.Contains(failed.Text, s.store.bucket) {
		s.failed.Add(1)
	} else {
		s.slotless.Add(1)
	}
	return nil
}
