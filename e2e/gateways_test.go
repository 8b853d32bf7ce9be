package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
	"github.com/duramendb/duramen/internal/seriesgen"
)

// startGateway starts a store-gateway over a bucket and returns it with the address at which queriers reach it.
func startGateway(t *testing.T, bucket string, args ...string) (*node, string) {
	t.Helper()
	port, err := process.FreePort()
	require.NoError(t, err)
	address := "127.0.0.1:" + strconv.Itoa(port)
	args = append([]string{
		"-target=store-gateway", "-bucket.filesystem.directory=" + bucket, "-server.grpc-listen-address=" + address,
	}, args...)
	return startNode(t, t.TempDir(), args...), address
}

// TestStoreGateways: a node has its blocks read by two gateways, of which one and then both are killed in the middle of
// queries. Every answer is right or says 503 and which gateways are away; what comes back is used again.
func TestStoreGateways(t *testing.T) {
	bucket := filepath.Join(t.TempDir(), "bucket")
	a, addressA := startGateway(t, bucket)
	b, addressB := startGateway(t, bucket)
	n := startNode(t, t.TempDir(), "-bucket.filesystem.directory="+bucket,
		"-querier.store-gateway-addresses="+addressA+","+addressB)
	alone := startNode(t, t.TempDir(), "-bucket.filesystem.directory="+bucket) // reads the same blocks itself
	c, direct := client.Duramen(n.URL, "far"), client.Duramen(alone.URL, "far")
	defer c.CloseIdle()
	defer direct.CloseIdle()

	const scrapes, pods = 100, 16
	start := time.Now().Add(-30 * time.Hour) // all of it is older than what ingesters answer
	l := newLedger(t, seriesgen.Config{
		Seed: random(t).Uint64(), Series: pods * seriesgen.SeriesPerPod, Histograms: true,
		Start: start.UnixMilli(), Interval: 17 * time.Hour / scrapes,
	}, scrapes, 8)
	for scrape := range l.scrapes {
		for chunk := range l.chunks() {
			ok, err := l.pushOnce(t.Context(), c, scrape, chunk)
			require.NoError(t, err)
			require.True(t, ok)
		}
	}
	require.True(t, flush(t.Context(), c))
	l.verify(t, c, 1)
	sameAnswers(t, c, direct, start, start.Add(17*time.Hour))
	require.Positive(t, sentSeries(t, a))
	require.Positive(t, sentSeries(t, b))

	far := startCrowd(t, l, c)
	far.await(12)
	a.Kill()
	far.await(12) // of b alone
	require.NoError(t, a.start())
	far.await(12)
	require.Zero(t, far.away.Load(), "one that is left suffices, also for what had begun")
	b.Kill()
	a.Kill()
	far.awaitFailure()
	require.NoError(t, b.start())
	far.await(12)
	require.NoError(t, a.start())
	far.end()
	t.Logf("%d right answers, %d said that gateways are away", far.right.Load(), far.away.Load())

	require.Eventually(t, func() bool {
		sameAnswers(t, c, direct, start, start.Add(17*time.Hour))
		return sentSeries(t, a) > 0 && sentSeries(t, b) > 0
	}, startTimeout, retryEvery, "both are used again")
	l.verify(t, c, 2)
}

func sentSeries(t *testing.T, gateway *node) float64 {
	t.Helper()
	c := client.Duramen(gateway.URL, "")
	defer c.CloseIdle()
	v, err := c.Metric(t.Context(), "duramen_gateway_sent_series_total")
	require.NoError(t, err)
	return v
}

// sameAnswers asks two nodes the same.
func sameAnswers(t *testing.T, one, other *client.Client, mint, maxt time.Time) {
	t.Helper()
	span := fmt.Sprintf("start=%d&end=%d", mint.Unix(), maxt.Unix())
	for _, path := range []string{
		"/api/v1/query_range?step=900&query=count+by(job)(last_over_time({__name__=~\".%2B\"}[1h]))&" + span,
		"/api/v1/query_range?step=3600&query=topk(3,count+by(__name__)({pod!=\"\"}))&" + span,
		"/api/v1/series?match[]={__name__=~\".*total\"}&" + span,
		"/api/v1/labels?" + span,
		"/api/v1/label/pod/values?" + span,
		"/api/v1/label/__name__/values?match[]={pod=~\".*[02468]\"}&" + span,
	} {
		var want, got json.RawMessage
		require.NoError(t, other.Ask(t.Context(), path, &want), path)
		require.NoError(t, one.Ask(t.Context(), path, &got), path)
		require.JSONEq(t, string(want), string(got), path)
		require.Greater(t, len(got), 50, path)
	}
}

// queries asks for all samples of one pod after another, several at a time, until it is ended.
type queries struct {
	t           *testing.T
	cancel      context.CancelFunc
	group       *errgroup.Group
	ctx         context.Context
	right, away atomic.Int64
}

func startCrowd(t *testing.T, l *ledger, c *client.Client) *queries {
	ctx, cancel := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	q := &queries{t: t, cancel: cancel, group: group, ctx: ctx}
	t.Cleanup(cancel)
	for i := range 4 {
		group.Go(func() error {
			for n := i; ctx.Err() == nil; n++ {
				pod := n % l.pods()
				err := l.checkPod(ctx, c, pod, 0, l.scrapes-1, l.podFates(pod))
				var failed *client.QueryError
				switch {
				case err == nil:
					q.right.Add(1)
				case ctx.Err() != nil:
				case errors.As(err, &failed) && failed.Status == http.StatusServiceUnavailable:
					q.away.Add(1)
				default:
					return err
				}
			}
			return nil
		})
	}
	return q
}

// await returns when n more answers were right.
func (q *queries) await(n int64) { q.awaitMore(&q.right, n) }

// awaitFailure returns when some more queries got no answer.
func (q *queries) awaitFailure() { q.awaitMore(&q.away, 4) }

func (q *queries) awaitMore(count *atomic.Int64, n int64) {
	q.t.Helper()
	want := count.Load() + n
	require.Eventually(q.t, func() bool { return count.Load() >= want || q.ctx.Err() != nil }, startTimeout, time.Millisecond)
	require.NoError(q.t, context.Cause(q.ctx))
}

func (q *queries) end() {
	q.t.Helper()
	q.cancel()
	require.NoError(q.t, q.group.Wait())
}
