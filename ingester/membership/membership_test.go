package membership

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/ring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeIngester holds what the test says.
type fakeIngester struct {
	mtx      sync.Mutex
	readOnly bool
	tenants  []string
	pushes   int
	end      int64
	err      error // of Empty, which else brings all to the bucket
	empties  int
	lost     int64
}

func (f *fakeIngester) set(fn func(f *fakeIngester)) {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	fn(f)
}

func (f *fakeIngester) SetReadOnly(readOnly bool) {
	f.set(func(f *fakeIngester) { f.readOnly = readOnly })
}

func (f *fakeIngester) ShippedUpTo() int64 {
	if tenants, _ := f.Unshipped(); len(tenants) > 0 {
		return 1
	}
	return time.Now().UnixMilli()
}

func (f *fakeIngester) Unshipped() ([]string, int) {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	return f.tenants, f.pushes
}

func (f *fakeIngester) Empty(context.Context) error {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	f.empties++
	if f.err == nil {
		f.tenants = nil
	}
	return f.err
}

func (f *fakeIngester) End() int64 {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	return max(f.end, time.Now().UnixMilli())
}

func (f *fakeIngester) LostBefore() int64 {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	return f.lost
}

// fakeMember is an entry with its history of states.
type fakeMember struct {
	mtx    sync.Mutex
	self   ring.Member
	states []ring.State

	diskFull bool
}

func (f *fakeMember) Self() ring.Member {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	return f.self
}

func (f *fakeMember) Update(fn func(m *ring.Member)) {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	before := f.self.State
	fn(&f.self)
	if f.self.State != before {
		f.states = append(f.states, f.self.State)
	}
}

func (f *fakeMember) LoseBefore(before int64) error {
	if f.diskFull {
		return errors.New("no space")
	}
	f.Update(func(m *ring.Member) { m.LostBefore = before })
	return nil
}

func (f *fakeMember) history() []ring.State {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	return f.states
}

// story is a member with its data directory.
type story struct {
	*Membership
	t        *testing.T
	dir      string
	ingester *fakeIngester
	member   *fakeMember
	left     int
}

func newStory(t *testing.T) *story {
	s := &story{t: t, dir: t.TempDir(), ingester: &fakeIngester{tenants: []string{"a", "b"}}}
	s.start()
	return s
}

// start is what a process does: it reads what was prepared, becomes ACTIVE, and lives.
func (s *story) start() {
	s.member = &fakeMember{self: ring.Member{ID: "i", Roles: []ring.Role{ring.RoleIngester}}}
	s.Membership = New(s.dir, s.ingester, s.member, func() error { s.left++; return nil }, time.Now, slog.New(slog.DiscardHandler))
	require.NoError(s.t, s.Restore())
	s.member.Update(func(m *ring.Member) { m.State = ring.Active })
}

func (s *story) ask(method string) Status {
	s.t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, "/ingester/prepare-shutdown", nil))
	require.Equal(s.t, http.StatusOK, w.Code, w.Body)
	var status Status
	require.NoError(s.t, json.Unmarshal(w.Body.Bytes(), &status))
	return status
}

// TestScaleDown is the whole way: prepare, drain while the bucket is away for a time, stop, left.
func TestScaleDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory(t)
		s.ingester.err = errors.New("bucket is away")
		life := s.Service()
		require.NoError(t, life.Start(t.Context()))
		synctest.Wait()
		require.Zero(t, s.ingester.empties, "nobody asked for it")
		require.False(t, s.ask(http.MethodGet).Prepared)

		status := s.ask(http.MethodPost)
		require.True(t, status.Prepared)
		require.Equal(t, ring.ReadOnly, status.State)
		require.True(t, s.ingester.readOnly)
		synctest.Wait()
		status = s.ask(http.MethodGet)
		require.Equal(t, []string{"a", "b"}, status.UnshippedTenants)
		require.Equal(t, "bucket is away", status.Error)
		require.False(t, status.Emptied)

		s.ingester.set(func(f *fakeIngester) { f.err, f.pushes = nil, 1 })
		time.Sleep(2 * tickInterval)
		synctest.Wait()
		require.False(t, s.ask(http.MethodGet).Emptied, "a push may bring something")
		s.ingester.set(func(f *fakeIngester) { f.pushes = 0 })
		status = s.ask(http.MethodGet)
		require.True(t, status.Emptied)
		require.Empty(t, status.Error)

		// What is ahead of the clock is waited for.
		end := time.Now().Add(90 * time.Second).UnixMilli()
		s.ingester.set(func(f *fakeIngester) { f.end = end })
		require.NoError(t, life.Stop())
		require.Equal(t, []ring.State{ring.Active, ring.ReadOnly, ring.Leaving, ring.Left}, s.member.history())
		require.Equal(t, end, s.member.Self().Floor)
		require.GreaterOrEqual(t, time.Now().UnixMilli(), end)
		require.Equal(t, 1, s.left)

		s.start()
		require.False(t, s.ask(http.MethodGet).Prepared, "the next start is a newcomer's")
	})
}

// TestLeaveNeedsTheBucket: without it the member goes on LEAVING, stays in the ring, and a start goes on draining.
func TestLeaveNeedsTheBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory(t)
		s.ingester.err = errors.New("bucket is away")
		life := s.Service()
		require.NoError(t, life.Start(t.Context()))
		s.ask(http.MethodPost)
		require.ErrorContains(t, life.Stop(), "bucket is away")
		require.Equal(t, ring.Leaving, s.member.Self().State)
		require.Zero(t, s.left)

		s.ingester.readOnly, s.ingester.err = false, nil
		s.start()
		require.True(t, s.ingester.readOnly, "from the first moment on")
		life = s.Service()
		require.NoError(t, life.Start(t.Context()))
		require.Equal(t, ring.ReadOnly, s.member.Self().State)
		synctest.Wait()
		require.True(t, s.ask(http.MethodGet).Emptied)
		require.NoError(t, life.Stop())
		require.Equal(t, ring.Left, s.member.Self().State)
	})
}

// TestCancel: a prepared shutdown can be taken back, also after a restart, and then a stop is a restart again.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory(t)
		require.NoError(t, s.Prepare())
		require.NoError(t, s.Prepare(), "again")
		s.start()
		life := s.Service()
		require.NoError(t, life.Start(t.Context()))
		status := s.ask(http.MethodDelete)
		require.False(t, status.Prepared)
		require.Equal(t, ring.Active, status.State)
		require.False(t, s.ingester.readOnly)
		s.ask(http.MethodDelete)
		require.NoError(t, life.Stop())
		require.Equal(t, ring.Active, s.member.Self().State, "a restart keeps the entry")
		require.Zero(t, s.left)
		s.start()
		require.False(t, s.ask(http.MethodGet).Prepared)
	})
}

// TestTells says how far the ingester has shipped, not too often.
func TestTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory(t)
		life := s.Service()
		require.NoError(t, life.Start(t.Context()))
		require.Equal(t, int64(1), s.member.Self().ShippedUpTo)
		s.ingester.set(func(f *fakeIngester) { f.tenants = nil })
		time.Sleep(tellInterval - time.Second)
		synctest.Wait()
		require.Equal(t, int64(1), s.member.Self().ShippedUpTo)
		time.Sleep(tickInterval)
		synctest.Wait()
		require.Greater(t, s.member.Self().ShippedUpTo, int64(1))
		require.NoError(t, life.Stop())
	})
}

// TestTellsLoss: what a damaged log has cost is said at the start and when it is found, and not again when it was taken
// back.
func TestTellsLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory(t)
		s.ingester.lost = 5
		life := s.Service()
		require.NoError(t, life.Start(t.Context()))
		require.Equal(t, int64(5), s.member.Self().LostBefore)
		require.NoError(t, s.member.LoseBefore(0)) // the other zones have shipped it
		time.Sleep(2 * tickInterval)
		synctest.Wait()
		require.Zero(t, s.member.Self().LostBefore)
		s.ingester.set(func(f *fakeIngester) { f.lost = 7 })
		time.Sleep(tickInterval)
		synctest.Wait()
		require.Equal(t, int64(7), s.member.Self().LostBefore)
		require.NoError(t, life.Stop())

		s.start()
		s.member.diskFull = true
		require.Error(t, s.Service().Start(t.Context()), "a member that cannot say so does not begin")
	})
}

func TestRefusals(t *testing.T) {
	s := newStory(t)
	for _, state := range []ring.State{ring.Joining, ring.Leaving, ring.Left} {
		s.member.self.State = state
		require.Error(t, s.Prepare())
		require.Error(t, s.Cancel())
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil))
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		require.Contains(t, w.Body.String(), state.String())
	}
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, noteName), []byte("{"), 0o666))
	require.ErrorContains(t, s.Restore(), "remove it")
}
