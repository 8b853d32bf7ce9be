package e2e

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/internal/faultproxy"
)

// mostRSS bounds the memory of a node while a crowd of queries waits for a bad store. 70 to 175 MiB were measured, and 315
// while something else took the machine's cores.
const mostRSS = 512 << 20

// TestBadStoreTakesNoMemory: 64 queries at once over blocks that no cache holds, while the store stops in the middle of
// answers, drips, or sends large pages. The node's memory stays bounded, every query is answered in full or says 503, and
// afterwards all is well.
func TestBadStoreTakesNoMemory(t *testing.T) {
	store := startStore(t)
	n := startNode(t, t.TempDir(), store.args("-querier.timeout=3s", "-querier.max-concurrent=64",
		"-bucket.s3.stall-timeout=2s", "-chunkstore.disk-cache.max-bytes=0",
		"-chunkstore.memory.directories-share=0", "-chunkstore.memory.pages-share=0")...)
	c := client.Duramen(n.URL, "slow")
	defer c.CloseIdle()
	l := virtualLedger(t, random(t), 150, crowd)
	for scrape := range l.scrapes {
		for chunk := range l.chunks() {
			ok, err := l.pushOnce(t.Context(), c, scrape, chunk)
			require.NoError(t, err)
			require.True(t, ok)
		}
	}
	require.True(t, flush(t.Context(), c))
	n.crash() // what writing took is not of interest

	for name, plan := range map[string]faultproxy.Plan{
		"stops in every answer": faultproxy.Always(faultproxy.Cut(0.9, faultproxy.Stall(nil))),
		"drips":                 faultproxy.Always(faultproxy.Drip(4<<10, 20*time.Millisecond)),
		"stops in chunks": func(r faultproxy.Request) faultproxy.Fault {
			if strings.Contains(r.Key, "/chunks/") {
				return faultproxy.Cut(0.5, faultproxy.Stall(nil))
			}
			return faultproxy.Pass()
		},
		"sends pages": faultproxy.Always(faultproxy.Answer(503, strings.Repeat("<p>Overload</p>\n", 1<<18))),
	} {
		store.proxy.Heal()
		store.proxy.SetPlan(plan)
		answered := askAll(t, l, c)
		rss, err := n.PeakRSS()
		require.NoError(t, err)
		t.Logf("a store that %s: %d of %d queries answered, %d requests, %d MiB at most so far", name, answered, crowd,
			store.proxy.Total(), rss>>20)
		require.Less(t, rss, int64(mostRSS))
	}
	store.proxy.SetPlan(nil)
	require.Eventually(t, func() bool { return store.proxy.Active() == 0 }, startTimeout, retryEvery, "requests are given up")
	l.verify(t, c, 8)
}

// askAll asks for all samples of as many pods at the same time, and returns how many got an answer.
func askAll(t *testing.T, l *ledger, c *client.Client) (answered int) {
	t.Helper()
	answers := make(chan error, crowd)
	var group errgroup.Group
	for i := range crowd {
		group.Go(func() error {
			err := l.checkPod(t.Context(), c, i%l.pods(), 0, l.scrapes-1, l.podFates(i%l.pods()))
			answers <- err
			var failed *client.QueryError
			if errors.As(err, &failed) && failed.Status == http.StatusServiceUnavailable {
				return nil
			}
			return err
		})
	}
	require.NoError(t, group.Wait())
	close(answers)
	for err := range answers {
		if err == nil {
			answered++
		}
	}
	return answered
}
