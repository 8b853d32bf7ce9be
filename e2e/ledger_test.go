package e2e

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/internal/seriesgen"
)

// fate is what is known of the samples of one request.
type fate uint8

const (
	neverSent fate = iota
	// unknown: no answer came, or one that says "not now". The samples may be there or not.
	unknown
	// acknowledged: the samples are there, once.
	acknowledged
)

// ledger remembers the fate of every request: one scrape of one chunk of series.
type ledger struct {
	gen       *seriesgen.Generator
	scrapes   int
	chunkPods int // pods in one request

	mu    sync.Mutex
	fates [][]fate // by scrape, by chunk
}

func newLedger(t *testing.T, cfg seriesgen.Config, scrapes, chunkPods int) *ledger {
	t.Helper()
	gen, err := seriesgen.New(cfg)
	require.NoError(t, err)
	l := &ledger{gen: gen, scrapes: scrapes, chunkPods: chunkPods, fates: make([][]fate, scrapes)}
	for i := range l.fates {
		l.fates[i] = make([]fate, l.chunks())
	}
	return l
}

func (l *ledger) pods() int { return l.gen.Series() / seriesgen.SeriesPerPod }

func (l *ledger) chunks() int { return (l.pods() + l.chunkPods - 1) / l.chunkPods }

func (l *ledger) set(scrape, chunk int, f fate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fates[scrape][chunk] = f
}

// podFates returns the fate of each scrape of a pod.
func (l *ledger) podFates(pod int) []fate {
	l.mu.Lock()
	defer l.mu.Unlock()
	fates := make([]fate, l.scrapes)
	for s := range fates {
		fates[s] = l.fates[s][pod/l.chunkPods]
	}
	return fates
}

// count returns how many requests have the fate.
func (l *ledger) count(f fate) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, chunks := range l.fates {
		for _, got := range chunks {
			if got == f {
				n++
			}
		}
	}
	return n
}

// raw returns the request for a chunk, in either version by turns.
func (l *ledger) raw(scrape, chunk int) (client.Version, []byte) {
	from := chunk * l.chunkPods * seriesgen.SeriesPerPod
	to := min(from+l.chunkPods*seriesgen.SeriesPerPod, l.gen.Series())
	if (scrape+chunk)%2 == 0 {
		return client.V1, l.gen.AppendRequest1(nil, scrape, from, to)
	}
	return client.V2, l.gen.AppendRequest2(nil, scrape, from, to)
}

// pushOnce sends one request and notes its fate. Permanent refusals are errors: the ledger sends nothing wrong.
func (l *ledger) pushOnce(ctx context.Context, c *client.Client, scrape, chunk int) (bool, error) {
	l.set(scrape, chunk, unknown)
	version, raw := l.raw(scrape, chunk)
	a, err := c.Push(ctx, version, raw)
	switch {
	case err != nil:
		return false, nil //nolint:nilerr // no answer is a fate of the ledger, not a fault of the story
	case a.OK():
		l.set(scrape, chunk, acknowledged)
		return true, nil
	case a.Retry():
		return false, nil
	default:
		return false, fmt.Errorf("scrape %d, chunk %d: answered %d: %s", scrape, chunk, a.Status, a.Body)
	}
}

// retryEvery is how long the sender waits after an attempt that was not acknowledged.
const retryEvery = 30 * time.Millisecond

// sendAll sends every scrape, all chunks of one at the same time, evenly over the given time or as fast as it goes. One
// in eight requests without an acknowledgement is given up, the others are sent again until they are acknowledged. After
// some acknowledgements it asks at once for what was acknowledged.
func (l *ledger) sendAll(ctx context.Context, c *client.Client, rnd *rand.Rand, over time.Duration) error {
	begin := time.Now()
	for scrape := range l.scrapes {
		if err := wait(ctx, time.Until(begin.Add(over*time.Duration(scrape)/time.Duration(l.scrapes)))); err != nil {
			return err
		}
		var group errgroup.Group
		for chunk := range l.chunks() {
			seed := rnd.Uint64()
			group.Go(func() error {
				own := rand.New(rand.NewPCG(seed, 1))
				return l.send(ctx, c, own, scrape, chunk)
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) send(ctx context.Context, c *client.Client, rnd *rand.Rand, scrape, chunk int) error {
	for {
		ok, err := l.pushOnce(ctx, c, scrape, chunk)
		if err != nil {
			return err
		}
		if ok {
			break
		}
		if rnd.IntN(8) == 0 {
			return nil
		}
		if err := wait(ctx, retryEvery); err != nil {
			return err
		}
	}
	if rnd.IntN(20) == 0 {
		pod := chunk*l.chunkPods + rnd.IntN(min(l.chunkPods, l.pods()-chunk*l.chunkPods))
		return l.checkVisible(ctx, c, pod, scrape)
	}
	return nil
}

// wait sleeps unless ctx is over first.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// checkVisible asks for the last scrapes of a pod, of which the newest was acknowledged just now. A node that is down or
// says so is no fault; an answer that lacks something acknowledged is.
func (l *ledger) checkVisible(ctx context.Context, c *client.Client, pod, scrape int) error {
	from := max(0, scrape-20)
	fates := l.podFates(pod) // before the query: what is acknowledged later need not be seen
	err := l.checkPod(ctx, c, pod, from, scrape, fates)
	if _, wrong := err.(*wrongError); wrong { //nolint:errorlint // made by checkPod, never wrapped
		return fmt.Errorf("right after the acknowledgement of scrape %d: %w", scrape, err)
	}
	return nil
}

// wrongError is an answer that contradicts the ledger.
type wrongError struct{ text string }

func (e *wrongError) Error() string { return e.text }

func wrongf(format string, args ...any) error { return &wrongError{fmt.Sprintf(format, args...)} }

// checkPod compares what the server returns for the scrapes [from, to] of a pod with what must and may be there.
func (l *ledger) checkPod(ctx context.Context, c *client.Client, pod, from, to int, fates []fate) error {
	first := pod * seriesgen.SeriesPerPod
	mint, maxt := l.gen.Time(first, from), l.gen.Time(first, to)
	got, err := c.Samples(ctx, fmt.Sprintf(`{pod=%q}`, l.gen.Pod(first)), maxt, maxt-mint+1)
	if err != nil {
		return err
	}
	byLabels := map[string]client.Series{}
	for _, s := range got {
		key := labels.FromMap(s.Metric).String()
		if _, twice := byLabels[key]; twice {
			return wrongf("the answer has the series %s twice", key)
		}
		byLabels[key] = s
	}
	for i := range seriesgen.SeriesPerPod {
		key := l.gen.Labels(first + i).String()
		if err := l.checkSeries(first+i, from, to, fates, byLabels[key]); err != nil {
			return err
		}
		delete(byLabels, key)
	}
	for key := range byLabels {
		return wrongf("the answer has the series %s, which was never sent", key)
	}
	return nil
}

func (l *ledger) checkSeries(series, from, to int, fates []fate, got client.Series) error {
	points := map[int64]client.Point{}
	for _, list := range [][]client.Point{got.Values, got.Histograms} {
		for _, p := range list {
			if _, twice := points[p.T]; twice {
				return wrongf("%s has two samples at %d", l.gen.Labels(series), p.T)
			}
			points[p.T] = p
		}
	}
	for scrape := from; scrape <= to; scrape++ {
		want := l.gen.Expected(series, scrape)
		p, found := points[want.T]
		delete(points, want.T)
		switch {
		case want.Stale():
			if found {
				return wrongf("%s returns a stale marker at %d", l.gen.Labels(series), want.T)
			}
		case !found && fates[scrape] == acknowledged:
			return wrongf("%s lacks the acknowledged sample at %d (scrape %d)", l.gen.Labels(series), want.T, scrape)
		case found && fates[scrape] == neverSent:
			// The fates may be older than the answer; the caller that wants this check passes final ones.
			return wrongf("%s has a sample at %d (scrape %d) that was never sent", l.gen.Labels(series), want.T, scrape)
		case found:
			if err := equal(want, p); err != nil {
				return wrongf("%s at %d (scrape %d): %v", l.gen.Labels(series), want.T, scrape, err)
			}
		}
	}
	for t := range points {
		return wrongf("%s has a sample at %d, where none was scraped", l.gen.Labels(series), t)
	}
	return nil
}

// equal compares a sample with what the API shows of it.
func equal(want seriesgen.Sample, got client.Point) error {
	fh := want.FH
	if want.H != nil {
		fh = want.H.ToFloat(nil)
	}
	if fh == nil {
		if got.H != nil || got.V != want.V && !(math.IsNaN(got.V) && math.IsNaN(want.V)) {
			return fmt.Errorf("got %v, want %v", got, want.V)
		}
		return nil
	}
	if got.H == nil || got.H.Count != fh.Count || got.H.Sum != fh.Sum {
		return fmt.Errorf("got %+v, want %s", got.H, fh)
	}
	rest := got.H.Buckets
	for it := fh.AllBucketIterator(); it.Next(); {
		b := it.At()
		if b.Count == 0 {
			continue
		}
		if len(rest) == 0 || rest[0].Lower != b.Lower || rest[0].Upper != b.Upper || rest[0].Count != b.Count {
			return fmt.Errorf("got %+v, want bucket %s", got.H, b)
		}
		rest = rest[1:]
	}
	if len(rest) > 0 {
		return fmt.Errorf("buckets too many: %+v", rest)
	}
	return nil
}

// verify checks every sample of every pod, or of every n-th, against the final ledger.
func (l *ledger) verify(t *testing.T, c *client.Client, every int) {
	t.Helper()
	begin := time.Now()
	for pod := 0; pod < l.pods(); pod += every {
		require.NoError(t, l.checkPod(t.Context(), c, pod, 0, l.scrapes-1, l.podFates(pod)), "pod %d", pod)
	}
	t.Logf("%d requests acknowledged, %d unknown, %d never sent; %d samples checked in %s", l.count(acknowledged),
		l.count(unknown), l.count(neverSent), l.gen.Series()/every*l.scrapes, time.Since(begin).Round(time.Millisecond))
}

// flush asks for everything to be in the bucket. It reports whether the node said yes.
func flush(ctx context.Context, c *client.Client) bool {
	a, err := c.Post(ctx, "/ingester/flush?wait=true&tenant="+c.Tenant)
	return err == nil && a.Status == http.StatusOK
}
