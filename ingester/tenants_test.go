package ingester

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

func TestNothingIsServedBeforeTheStartAndAfterTheStop(t *testing.T) {
	clock := &testClock{t: testStart}
	i, err := New(testConfig(t.TempDir()), bucket.NewInMemory(), &testCatalog{}, &testLimits{}, clock.now,
		slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	refuses := func(because error) {
		t.Helper()
		_, _, err := i.Querier(t.Context(), "a", all, 0, 1)
		require.ErrorIs(t, err, because)
		require.Equal(t, errkind.Unavailable, errkind.Of(err))
		err = i.Push(t.Context(), "a", &duramenpb.Batch{}, &duramenpb.PushResult{})
		require.ErrorIs(t, err, because)
		require.ErrorIs(t, i.Check(t.Context()), because)
		_, err = i.Flush(t.Context(), "a", false)
		require.ErrorIs(t, err, because)
	}
	refuses(errStarting)
	s := i.Service()
	require.NoError(t, s.Start(t.Context()))
	require.NoError(t, i.Check(t.Context()))
	require.NoError(t, s.Stop())
	refuses(errStopping)
}

func TestTenantIDIsNeverAPath(t *testing.T) {
	f := newFixture(t)
	for _, id := range []string{"", "..", ".", "../x", "a/b", "/etc"} {
		err := f.Push(t.Context(), id, &duramenpb.Batch{}, &duramenpb.PushResult{})
		require.Error(t, err, id)
	}
	entries, err := os.ReadDir(f.dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.Equal(t, bornFileName, entries[0].Name())
}

// spoil makes all further writes to the newest segment of a log fail as on a full disk, without stock knowing: the open
// file is replaced by /dev/full under its descriptor.
func spoil(t *testing.T, dir string) {
	t.Helper()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, full.Close()) }()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	newest, newestFD := "", -1
	for _, e := range fds {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err != nil || filepath.Dir(target) != dir || filepath.Base(target) < newest {
			continue
		}
		newest = filepath.Base(target)
		_, err = fmt.Sscan(e.Name(), &newestFD)
		require.NoError(t, err)
	}
	require.NotEqual(t, -1, newestFD, "no open segment in %s", dir)
	require.NoError(t, unix.Dup3(int(full.Fd()), newestFD, unix.O_CLOEXEC))
}

func TestFailedWALWriteReopens(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	before := f.push(new(batch).floats(named("x"), 1, t0))
	spoil(t, filepath.Join(f.dir, "a", "wal"))
	b := new(batch).floats(named("x"), 1, t0+1)
	r := &duramenpb.PushResult{}
	err := f.Push(t.Context(), "a", &b.Batch, r)
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	require.ErrorIs(t, err, unix.ENOSPC)
	require.Zero(t, r.Floats)

	require.Equal(t, map[string][]sample{`{__name__="x"}`: floatsOf(1, t0)}, f.eventually(), "nothing refused is visible")
	after := f.push(b)
	require.NotEqual(t, before.Incarnation, after.Incarnation)
	require.Equal(t, 1, after.Floats)
	require.Equal(t, 1.0, testutil.ToFloat64(f.metrics.reopens))
	f.restart()
	require.Equal(t, map[string][]sample{`{__name__="x"}`: floatsOf(1, t0, t0+1)}, f.read())
}

func TestFailedWBLWriteIsNotAcknowledged(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	f.push(new(batch).floats(named("x"), 1, t0))
	f.push(new(batch).floats(named("x"), 1, t0-1000))
	spoil(t, filepath.Join(f.dir, "a", "wbl"))
	b := new(batch).floats(named("x"), 1, t0-2000)
	err := f.Push(t.Context(), "a", &b.Batch, &duramenpb.PushResult{})
	require.ErrorIs(t, err, errWBL, "stock returned nil, but a restart would have lost the sample")
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	f.eventually()
	require.Equal(t, 1, f.push(b).Floats)
	f.restart()
	require.Equal(t, floatsOf(1, t0-2000, t0-1000, t0), f.read()[`{__name__="x"}`])
}

func TestFailedSyncReopens(t *testing.T) {
	f := newFixture(t)
	before := f.push(new(batch).floats(named("x"), 1, ms(testStart)))
	f.syncFailed([]string{filepath.Join(f.dir, "a"), filepath.Join(f.dir, "nobody")}, errors.New("EIO"))
	require.Len(t, f.eventually(), 1)
	require.NotEqual(t, before.Incarnation, f.push(new(batch).floats(named("x"), 1, ms(testStart))).Incarnation)
}

func TestFullDiskRefusesWritesAndServesReads(t *testing.T) {
	f := newFixture(t)
	f.push(new(batch).floats(named("x"), 1, ms(testStart)))
	f.free.stat = func(string) (uint64, uint64, error) { return 0, 1 << 40, nil }
	f.clock.advance(time.Minute)
	err := f.Push(t.Context(), "a", &duramenpb.Batch{}, &duramenpb.PushResult{})
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	require.Len(t, f.read(), 1)
	_, err = f.Flush(t.Context(), "a", true)
	require.NoError(t, err)
}

func TestIdleTenantIsFlushedShippedAndClosed(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	before := f.push(new(batch).floats(named("x"), 1, t0))
	f.push(new(batch).floats(named("x"), 1, t0-1000))
	a := f.tenants.byID["a"]
	f.tidy(t.Context())
	require.Equal(t, tenantOpen, a.currentState())
	f.clock.advance(time.Hour)

	q, _, err := f.Querier(t.Context(), "a", all, 0, math.MaxInt64)
	require.NoError(t, err)
	require.NoError(t, q.Close())
	f.tidy(t.Context())
	require.Eventually(t, func() bool {
		f.tidy(t.Context())
		return a.currentState() == tenantClosed
	}, 20*time.Second, 10*time.Millisecond)
	m, err := f.catalog.Current(t.Context(), "a")
	require.NoError(t, err)
	require.Len(t, m.Blocks, 2, "one in order and one out of order, in different block ranges")

	f.restart()
	a = f.tenants.byID["a"]
	require.Equal(t, tenantClosed, a.currentState(), "a start leaves it closed")
	require.Equal(t, floatsOf(1, t0-1000, t0), f.read()[`{__name__="x"}`], "a query opens it")
	after := f.push(new(batch).floats(named("x"), 1, t0+1))
	require.NotEqual(t, before.Incarnation, after.Incarnation)

	f.restart()
	require.Equal(t, tenantOpen, f.tenants.byID["a"].currentState(), "it has data that is in no block")
}

func TestOldBlocksOfAnIdleTenantGo(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	f.push(new(batch).floats(named("x"), 1, t0))
	f.clock.advance(time.Hour)
	a := f.tenants.byID["a"]
	closed := func() bool {
		f.tidy(t.Context())
		return a.currentState() == tenantClosed
	}
	require.Eventually(t, closed, 20*time.Second, 10*time.Millisecond)
	f.clock.advance(10 * time.Hour)
	f.tidy(t.Context())
	require.Equal(t, tenantClosed, a.currentState(), "nothing is due")
	f.clock.advance(2 * time.Hour)
	require.Eventually(t, func() bool { f.tidy(t.Context()); return a.currentState() == tenantOpen }, 20*time.Second,
		10*time.Millisecond, "the block is old enough to go")
	f.shipAll(t.Context())
	require.NoError(t, f.tenants.byID["a"].life.db.CompactOOOHead(t.Context())) // stands for stock's reload every minute
	require.Zero(t, f.TenantStats()[0].LocalBlocks)
	f.clock.advance(time.Hour)
	require.Eventually(t, closed, 20*time.Second, 10*time.Millisecond)
	n, held := f.count(duramenpb.View{Version: 1, Cut: t0 + 1}, math.MinInt64, math.MaxInt64)
	require.Zero(t, n)
	require.Equal(t, duramenpb.Held{Floor: t0 + 1, DeletedVersion: 1}, held)
	require.False(t, held.Fits(duramenpb.View{Version: 0, Cut: t0 + 1}, 0))
}

func TestWindowChangesLive(t *testing.T) {
	f := newFixture(t)
	f.limits.change(func(l *testLimits) { l.window = 0 })
	t0 := ms(testStart)
	f.push(new(batch).floats(named("x"), 1, t0))
	old := new(batch).floats(named("x"), 1, t0-1000)
	require.Equal(t, duramenpb.ReasonOutOfOrder, f.push(old).Refused[0].Reason)
	f.limits.change(func(l *testLimits) { l.window = time.Minute })
	require.Equal(t, 1, f.push(old).Floats)
	f.restart()
	require.Len(t, f.read()[`{__name__="x"}`], 2)
	f.limits.change(func(l *testLimits) { l.window = 0 })
	require.Equal(t, duramenpb.ReasonOutOfOrder, f.push(new(batch).floats(named("x"), 1, t0-500)).Refused[0].Reason)
	require.Equal(t, 1, f.push(old).Floats, "what is held is a success at any window")
}

func TestOneTenantsDamageIsItsOwn(t *testing.T) {
	f := newFixture(t)
	f.push(new(batch).floats(named("x"), 1, ms(testStart)))
	f.stop()
	require.NoError(t, os.MkdirAll(filepath.Join(f.dir, "bad"), 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(f.dir, "bad", stateFileName), []byte("{"), 0o666))
	f.start()
	require.Len(t, f.read(), 1)
	_, _, err := f.Querier(t.Context(), "bad", all, 0, 1)
	require.ErrorContains(t, err, stateFileName)
	i := slices.IndexFunc(f.TenantStats(), func(s TenantStats) bool { return s.Tenant == "bad" })
	require.Equal(t, "closed", f.TenantStats()[i].State)
	require.NoError(t, f.Check(context.Background()))
}

func TestTenantsHandler(t *testing.T) {
	f := newFixture(t)
	f.push(new(batch).floats(named("x"), 1, ms(testStart)))
	ask := func() TenantStats {
		w := httptest.NewRecorder()
		f.TenantsHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/ingester/tenants", nil))
		require.Equal(t, http.StatusOK, w.Code)
		var answer struct{ Tenants []TenantStats }
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
		require.Len(t, answer.Tenants, 1)
		return answer.Tenants[0]
	}
	s := ask()
	require.Equal(t, "a", s.Tenant)
	require.Equal(t, "open", s.State)
	require.EqualValues(t, 1, s.Series)
	require.Equal(t, ms(testStart), s.OldestInMemory.UnixMilli())
	require.Zero(t, s.LastFlush)
	_, err := f.Flush(t.Context(), "a", true)
	require.NoError(t, err)
	s = ask()
	require.Zero(t, s.OldestInMemory, "all of it is in a block")
	require.False(t, s.LastFlush.IsZero())
	require.Equal(t, 1, s.LocalBlocks)
	require.Zero(t, s.UnshippedBlocks)
	w := httptest.NewRecorder()
	f.TenantsHandler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/ingester/tenants", nil))
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
}
