package e2e

import (
	"context"
	"math/rand/v2"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/internal/seriesgen"
)

// virtual is the time that the scrapes of the stories with killing cover. It reaches below the cut at which queries turn
// from the ingester to the store (11 h), and over many borders of blocks.
const virtual = 14 * time.Hour

func virtualLedger(t *testing.T, rnd *rand.Rand, scrapes, pods int) *ledger {
	t.Helper()
	return newLedger(t, seriesgen.Config{
		Seed: rnd.Uint64(), Series: pods * seriesgen.SeriesPerPod, Histograms: true,
		Start: time.Now().Add(-virtual).UnixMilli(), Interval: virtual / time.Duration(scrapes),
	}, scrapes, 8)
}

// TestKilledInMidLoad: a sender with a ledger writes while the node is killed at random moments and flushed in between.
// Acknowledged samples are visible to the next query whenever the node answers, and all there at the end.
func TestKilledInMidLoad(t *testing.T) {
	rnd := random(t)
	n := startNode(t, t.TempDir(), "-limits.out-of-order-window=3h")
	c := client.Duramen(n.URL, "killed")
	defer c.CloseIdle()
	l := virtualLedger(t, rnd, 600, 32)

	kills, flushes := disturb(t, l, c, rnd, func() { n.Kill() }, n.start)
	require.Positive(t, kills)
	t.Logf("%d kills, %d flushes", kills, flushes)
	l.verify(t, c, 1)

	// Once more with everything in the bucket, and once more after a kill.
	require.True(t, flush(t.Context(), c), "the last flush")
	l.verify(t, c, 3)
	n.crash()
	l.verify(t, c, 3)
	checkBlocks(t, n.bucketDir("killed"), l)
}

// TestTerminatedInMidLoad: SIGTERM lets requests that run end, exits with 0 and loses nothing.
func TestTerminatedInMidLoad(t *testing.T) {
	rnd := random(t)
	n := startNode(t, t.TempDir())
	c := client.Duramen(n.URL, "terminated")
	defer c.CloseIdle()
	l := virtualLedger(t, rnd, 300, 16)

	var exits []error
	stops, flushes := disturb(t, l, c, rnd, func() { exits = append(exits, n.Terminate(startTimeout)) }, n.start)
	require.Positive(t, stops)
	t.Logf("%d stops, %d flushes", stops, flushes)
	for _, err := range exits {
		require.NoError(t, err, "the exit after SIGTERM")
	}
	l.verify(t, c, 1)
}

// disturb sends the whole ledger over the story's duration, and meanwhile ends the node and starts it again, and flushes
// it, at random moments. It returns how often.
func disturb(
	t *testing.T, l *ledger, c *client.Client, rnd *rand.Rand, end func(), start func() error,
) (ends, flushes int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sendRnd, endRnd, flushRnd := fork(rnd), fork(rnd), fork(rnd)
	var group errgroup.Group
	group.Go(func() error {
		defer cancel()
		return l.sendAll(ctx, c, sendRnd, *duration)
	})
	group.Go(func() error {
		for wait(ctx, between(endRnd, 500*time.Millisecond, 4*time.Second)) == nil {
			end()
			ends++
			_ = wait(ctx, between(endRnd, 0, 300*time.Millisecond))
			if err := start(); err != nil {
				return err
			}
		}
		return nil
	})
	group.Go(func() error {
		for wait(ctx, between(flushRnd, 0, 2*time.Second)) == nil {
			if flush(ctx, c) {
				flushes++
			}
		}
		return nil
	})
	require.NoError(t, group.Wait())
	return ends, flushes
}

func fork(rnd *rand.Rand) *rand.Rand { return rand.New(rand.NewPCG(rnd.Uint64(), rnd.Uint64())) }

func between(rnd *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(rnd.Int64N(int64(high-low)))
}

var listed = regexp.MustCompile(`(?m)^[0-9A-Z]{26} +\d+ +\d+ +\S+ +(\d+) +(\d+) +(\d+)`)

// checkBlocks lets promtool read the tenant's blocks in the bucket.
func checkBlocks(t *testing.T, dir string, l *ledger) {
	t.Helper()
	promtool := tool(t, "promtool")
	out, err := exec.Command(promtool, "tsdb", "list", dir).CombinedOutput()
	require.NoError(t, err, string(out))
	blocks := listed.FindAllStringSubmatch(string(out), -1)
	require.NotEmpty(t, blocks, string(out))
	samples := 0
	for _, b := range blocks {
		n, err := strconv.Atoi(b[1])
		require.NoError(t, err)
		samples += n
	}
	chunkSeries := l.chunkPods * seriesgen.SeriesPerPod
	require.GreaterOrEqual(t, samples, l.count(acknowledged)*chunkSeries, "promtool sees fewer samples than were acknowledged")

	out, err = exec.Command(promtool, "tsdb", "analyze", dir).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "Total Series: ")
	t.Logf("promtool: %d blocks, %d samples", len(blocks), samples)
}
