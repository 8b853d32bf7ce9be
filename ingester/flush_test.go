package ingester

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
)

// TestFlushUnderLoad cuts blocks at the newest sample as fast as it can while several senders write ascending samples to
// many series, and counts: each acknowledged sample is there exactly once, at every moment.
func TestFlushUnderLoad(t *testing.T) {
	f := newFixture(t)
	f.clock.advance(24 * time.Hour) // nothing is ahead of the clock
	const senders, series = 3, 60
	t0 := ms(testStart)
	var sent [senders]atomic.Int64 // samples of each series that are acknowledged
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	f.push(new(batch).floats(named("first"), 1, t0))
	var work sync.WaitGroup
	for sender := range senders {
		work.Go(func() {
			r := &duramenpb.PushResult{}
			for n := int64(0); ctx.Err() == nil; n++ {
				b := &batch{}
				for i := range series {
					// A step of 20 s crosses a block border now and then.
					b.floats(named(fmt.Sprintf("s%d_%d", sender, i)), float64(n), t0+n*20_000)
				}
				err := f.Push(context.Background(), "a", &b.Batch, r)
				if err != nil || r.Floats != series {
					t.Errorf("push: %v, %d stored, refused %v", err, r.Floats, r.Refused)
					return
				}
				sent[sender].Add(1)
				// Senders stay within the out-of-order window of each other, as those of one site do.
				for ctx.Err() == nil && n > sent[(sender+1)%senders].Load()+100 {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	flushes := 0
	work.Go(func() {
		for ; ctx.Err() == nil; flushes++ {
			if _, err := f.Flush(context.Background(), "a", false); err != nil {
				t.Errorf("flush: %v", err)
				return
			}
		}
	})
	// Truncation waits for readers, half a second at a time: they stop early, so that there are many flushes.
	reading, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
	defer cancel()
	work.Go(func() {
		for reading.Err() == nil {
			before := [senders]int64{}
			for i := range senders {
				before[i] = sent[i].Load()
			}
			got := f.read()
			for i := range senders {
				if n := len(got[named(fmt.Sprintf("s%d_0", i)).String()]); int64(n) < before[i] {
					t.Errorf("%d samples were acknowledged, %d are read", before[i], n)
					return
				}
			}
		}
	})
	work.Wait()
	require.GreaterOrEqual(t, flushes, 2)
	check := func() {
		got := f.read()
		for sender := range senders {
			for i := range series {
				samples := got[named(fmt.Sprintf("s%d_%d", sender, i)).String()]
				require.Len(t, samples, int(sent[sender].Load()))
				for n, s := range samples {
					require.Equal(t, sample{t: t0 + int64(n)*20_000, v: float64(n)}, s)
				}
			}
		}
	}
	check()
	for _, b := range f.tenants.byID["a"].life.db.Blocks() {
		require.Equal(t, rangeEnd(b.MinTime()), rangeEnd(b.MaxTime()-1), "a block lies in one block range")
	}
	t.Logf("%d samples in %d flushes", (sent[0].Load()+sent[1].Load()+sent[2].Load())*series, flushes)
	f.restart()
	check()
}

func TestFlushKeepsWhatIsAheadOfTheClock(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	f.push(new(batch).floats(named("x"), 1, t0-1000, t0, t0+1, t0+60_000))
	res, err := f.Flush(t.Context(), "a", true)
	require.NoError(t, err)
	require.Equal(t, t0, res.FlushedUpToMs)
	require.Len(t, res.Blocks, 2, "one on each side of the border at noon")
	require.Equal(t, t0+1, f.tenants.byID["a"].life.db.Head().MinTime())
	require.Equal(t, map[string][]sample{`{__name__="x"}`: floatsOf(1, t0-1000, t0, t0+1, t0+60_000)}, f.read())

	res, err = f.Flush(t.Context(), "a", true)
	require.NoError(t, err)
	require.Empty(t, res.Blocks, "nothing is due twice")
	require.NotNil(t, res.Blocks, "in JSON it is a list")
	// What arrives behind the cut is late, not lost.
	r := f.push(new(batch).floats(named("x"), 2, t0-500).floats(named("y"), 2, t0-500, t0-400))
	require.Equal(t, 3, r.Floats)
	require.Empty(t, r.Refused)
	require.Len(t, f.read()[`{__name__="x"}`], 5)
	require.Len(t, f.read()[`{__name__="y"}`], 2)
	f.restart()
	require.Len(t, f.read()[`{__name__="y"}`], 2)
	f.clock.advance(time.Hour)
	_, err = f.Flush(t.Context(), "a", true)
	require.NoError(t, err)
	require.Len(t, f.read()[`{__name__="x"}`], 5)
	require.Len(t, f.read()[`{__name__="y"}`], 2)
}

func TestFlushWaitsForTheManifest(t *testing.T) {
	f := newFixture(t)
	f.push(new(batch).floats(named("x"), 1, ms(testStart)))
	f.catalog.mu.Lock()
	f.catalog.err = errors.New("bucket is away")
	f.catalog.mu.Unlock()
	_, err := f.Flush(t.Context(), "a", true)
	require.ErrorContains(t, err, "bucket is away")
	f.catalog.mu.Lock()
	f.catalog.err = nil
	f.catalog.mu.Unlock()
	res, err := f.Flush(t.Context(), "a", true)
	require.NoError(t, err)
	require.Empty(t, res.Blocks, "the block was cut before")
	m, err := f.catalog.Current(t.Context(), "a")
	require.NoError(t, err)
	require.Len(t, m.Blocks, 1)
}

// stallUploads has uploads stand still. entered gets a value for each.
func stallUploads(f *fixture) (entered <-chan struct{}) {
	began := make(chan struct{}, 10)
	f.shipper.upload = func(ctx context.Context, _ bucket.Bucket, _, _, _ string) (manifest.Block, error) {
		began <- struct{}{}
		<-ctx.Done()
		return manifest.Block{}, ctx.Err()
	}
	return began
}

// TestFlushEndsWithItsContext although another ship has the turn and the bucket stands still.
func TestFlushEndsWithItsContext(t *testing.T) {
	f := newFixture(t)
	entered := stallUploads(f)
	f.push(new(batch).floats(named("x"), 1, ms(testStart)))
	first, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := f.Flush(first, "a", true)
		done <- err
	}()
	<-entered
	second, giveUp := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer giveUp()
	_, err := f.Flush(second, "a", true)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}

// TestStalledShipKeepsNoTenantClosed: a tenant is opened again after a failed write although a ship hangs on its old life.
func TestStalledShipKeepsNoTenantClosed(t *testing.T) {
	f := newFixture(t)
	entered := stallUploads(f)
	f.push(new(batch).floats(named("x"), 1, ms(testStart)))
	done := make(chan error, 1)
	go func() {
		_, err := f.Flush(context.Background(), "a", true)
		done <- err
	}()
	<-entered
	tenant, err := f.tenants.get("a", false)
	require.NoError(t, err)
	l := tenant.tryAcquire()
	tenant.fail(l, errors.New("disk write error"), false)
	l.release()
	require.Error(t, <-done)
	require.Eventually(t, func() bool { return tenant.currentState() == tenantOpen }, time.Minute, time.Millisecond)
	f.push(new(batch).floats(named("x"), 1, ms(testStart)+1))
}

func TestRegularCutOfAFullHead(t *testing.T) {
	f := newFixture(t)
	f.clock.advance(24 * time.Hour)
	t0 := ms(testStart)
	for n := range int64(10) {
		f.push(new(batch).floats(named("x"), 1, t0+n*30*60_000))
	}
	require.Eventually(t, func() bool { return f.TenantStats()[0].LocalBlocks == 1 }, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, t0+2*60*60_000, f.tenants.byID["a"].life.db.Head().MinTime())
	require.Len(t, f.read()[`{__name__="x"}`], 10)
}

func TestStaleMarkerBeforeHistogramInOneBatch(t *testing.T) {
	f := newFixture(t)
	f.limits.change(func(l *testLimits) { l.window = 0 })
	f.restart()
	t0 := ms(testStart)
	b := &batch{}
	b.Histograms = append(b.Histograms, duramenpb.Histogram{T: t0, H: testHistogram(1, 0)})
	b.end(duramenpb.Series{Labels: named("x")})
	require.Equal(t, 1, f.push(b).Histograms)
	b = &batch{}
	b.floats(named("x"), math.Float64frombits(value.StaleNaN), t0+1)
	b.Histograms = append(b.Histograms, duramenpb.Histogram{T: t0 + 2, H: testHistogram(2, 0)})
	b.end(duramenpb.Series{Labels: named("x")})
	r := f.push(b)
	require.Empty(t, r.Refused)
	require.Equal(t, 2, r.Floats+r.Histograms)
	require.Len(t, f.read()[`{__name__="x"}`], 3, "the marker becomes a histogram in Commit and must not come too late")
	r = f.push(b)
	require.Empty(t, r.Refused, "a marker is equal to itself in another type")
}

func TestFlushHandler(t *testing.T) {
	f := newFixture(t)
	f.push(new(batch).floats(named("x"), 1, ms(testStart)))
	ask := func(method, target string) (int, flushAnswer) {
		w := httptest.NewRecorder()
		f.FlushHandler().ServeHTTP(w, httptest.NewRequest(method, target, nil))
		var a flushAnswer
		if w.Header().Get("Content-Type") == "application/json" {
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a))
		}
		return w.Code, a
	}
	code, _ := ask(http.MethodGet, "/ingester/flush")
	require.Equal(t, http.StatusMethodNotAllowed, code)
	code, _ = ask(http.MethodPost, "/ingester/flush?tenant=nobody")
	require.Equal(t, http.StatusNotFound, code)
	code, _ = ask(http.MethodPost, "/ingester/flush?wait=perhaps")
	require.Equal(t, http.StatusBadRequest, code)
	code, a := ask(http.MethodPost, "/ingester/flush?tenant=a&wait=true")
	require.Equal(t, http.StatusOK, code)
	require.Len(t, a.Results, 1)
	require.Equal(t, ms(testStart), a.Results[0].FlushedUpToMs)
	require.Len(t, a.Results[0].Blocks, 1)
	code, a = ask(http.MethodPost, "/ingester/flush")
	require.Equal(t, http.StatusOK, code)
	require.Len(t, a.Results, 1)
	require.Empty(t, a.Errors)
}

func TestCutTakesInWhatAPushUnderWayCommitsBelow(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	f.push(new(batch).floats(named("x"), 1, t0))
	l := f.tenants.byID["a"].tryAcquire()
	defer l.release()

	l.appendMu.Lock()
	done := make(chan error, 1)
	go func() {
		_, err := l.cut(context.Background(), t0)
		done <- err
	}()
	require.Eventually(t, l.cutting.Load, 10*time.Second, time.Millisecond)
	app := l.db.AppenderV2(t.Context())
	_, err := app.Append(0, named("y"), 0, t0-1000, 2, nil, nil, storage.AOptions{})
	require.NoError(t, err)
	require.NoError(t, app.Commit())
	l.appendMu.Unlock()
	require.NoError(t, <-done)
	require.Equal(t, floatsOf(2, t0-1000), f.read()[`{__name__="y"}`])
}

func TestSamplesHiddenByTruncationComeBack(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	before := f.push(new(batch).floats(named("x"), 1, t0))
	l := f.tenants.byID["a"].tryAcquire()
	// The race itself takes a jump of an hour within stock's sweep: this is what it leaves.
	l.appendMu.Lock()
	l.lowest = l.db.Head().MinTime() - 1
	err := l.checkHidden()
	l.appendMu.Unlock()
	l.release()
	require.ErrorIs(t, err, errHidden)
	require.Len(t, f.eventually(), 1)
	require.NotEqual(t, before.Incarnation, f.push(new(batch).floats(named("x"), 1, t0)).Incarnation)
}
