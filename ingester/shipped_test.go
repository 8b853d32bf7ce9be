package ingester

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// TestShippedUpTo follows samples from memory into the bucket: the time never passes one that the bucket has not.
func TestShippedUpTo(t *testing.T) {
	f := newFixture(t)
	t0, minute := ms(testStart), int64(60_000)
	require.Equal(t, t0, f.ShippedUpTo(), "nothing is held")

	f.clock.advance(time.Hour)
	now := ms(f.clock.now())
	f.push(new(batch).floats(named("m"), 1, t0+10*minute, t0+50*minute))
	require.Equal(t, t0+10*minute, f.ShippedUpTo(), "the oldest in memory")
	f.push(new(batch).floats(named("late"), 1, t0+5*minute))
	require.Equal(t, t0+5*minute, f.ShippedUpTo(), "what arrives late counts")
	f.push(new(batch).floats(named("m"), 1, t0-20*minute))
	require.Equal(t, t0-20*minute, f.ShippedUpTo(), "and what is out of order")

	f.catalog.fail(errors.New("bucket is away"))
	_, err := f.Flush(t.Context(), "a", true)
	require.Error(t, err)
	shipped := f.ShippedUpTo() // a block of what was out of order begins with its range
	require.LessOrEqual(t, shipped, t0-20*minute, "in blocks, but not in the bucket")
	require.GreaterOrEqual(t, shipped, t0-120*minute)
	tenants, pushes := f.Unshipped()
	require.Equal(t, []string{"a"}, tenants)
	require.Zero(t, pushes)

	f.catalog.fail(nil)
	require.NoError(t, f.Empty(t.Context()))
	require.Equal(t, now, f.ShippedUpTo(), "the bucket has everything")
	tenants, _ = f.Unshipped()
	require.Empty(t, tenants)
	require.Equal(t, now, f.End())

	f.push(new(batch).floats(named("m"), 1, now+minute))
	require.Equal(t, now+minute+1, f.End(), "ahead of the clock")
	require.LessOrEqual(t, f.ShippedUpTo(), now)
	require.Greater(t, f.ShippedUpTo(), t0+50*minute, "what was cut stays shipped")
	require.NoError(t, f.Empty(t.Context()))
	tenants, _ = f.Unshipped()
	require.Equal(t, []string{"a"}, tenants, "and not cut yet")
	f.clock.advance(2 * time.Minute)
	require.NoError(t, f.Empty(t.Context()))
	tenants, _ = f.Unshipped()
	require.Empty(t, tenants)
}

// TestShippedUpToOverRestarts: what an earlier life left counts as unshipped until the manifest says otherwise, and what
// was closed because it idled needs no look.
func TestShippedUpToOverRestarts(t *testing.T) {
	f := newFixture(t)
	f.clock.advance(time.Hour)
	f.push(new(batch).floats(named("m"), 1, ms(testStart)))
	f.restart()
	require.Equal(t, ms(testStart), f.ShippedUpTo(), "replayed")
	require.NoError(t, f.Empty(t.Context()))
	unshipped, err := UnshippedOnDisk(f.dir)
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, unshipped, "only the manifest knows")
	f.restart()
	require.LessOrEqual(t, f.ShippedUpTo(), ms(testStart)+1)
	require.NoError(t, f.Empty(t.Context()))
	require.Equal(t, ms(f.clock.now()), f.ShippedUpTo(), "the manifest lists it")

	f.clock.advance(2 * time.Hour)
	require.Eventually(t, func() bool { // for shipping may look at it at the moment
		f.tidy(t.Context())
		return f.tenants.all()[0].currentState() == tenantClosed
	}, 20*time.Second, time.Millisecond)
	require.Equal(t, ms(f.clock.now()), f.ShippedUpTo())
	unshipped, err = UnshippedOnDisk(f.dir)
	require.NoError(t, err)
	require.Empty(t, unshipped)
	f.restart()
	require.Equal(t, ms(f.clock.now()), f.ShippedUpTo())
	require.Equal(t, tenantClosed, f.tenants.all()[0].currentState(), "it was not opened for that")

	unshipped, err = UnshippedOnDisk(f.dir + "-none")
	require.NoError(t, err)
	require.Empty(t, unshipped)
}

// TestShippedUpToOfWhatCannotBeOpened: nothing is claimed of a tenant that is not to be read.
func TestShippedUpToOfWhatCannotBeOpened(t *testing.T) {
	f := idleFixture(t)
	require.NoError(t, os.MkdirAll(filepath.Join(f.dir, "a"), 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(f.dir, "a", stateFileName), []byte("{"), 0o666))
	f.start()
	require.Zero(t, f.ShippedUpTo())
}

// TestReadOnly: a draining ingester refuses pushes so that they are sent elsewhere, answers queries, and can go back.
// TestShippedUpToAfterAFailedWrite: nobody can look into a tenant that is being reopened, and what was acknowledged since
// the last look is only in its log.
func TestShippedUpToAfterAFailedWrite(t *testing.T) {
	f := newFixture(t)
	require.Equal(t, ms(testStart), f.ShippedUpTo())
	f.push(new(batch).floats(named("m"), 1, ms(testStart)-1))
	tenant, err := f.tenants.get("a", false)
	require.NoError(t, err)
	l := tenant.tryAcquire() // the reopening waits for it
	tenant.fail(l, errors.New("disk write error"), false)
	shipped := f.ShippedUpTo()
	tenants, pushes := f.Unshipped()
	l.release()
	require.Zero(t, shipped)
	require.Equal(t, []string{"a"}, tenants, "it must not leave now")
	require.Zero(t, pushes)
	require.Eventually(t, func() bool { return tenant.currentState() == tenantOpen }, time.Minute, time.Millisecond)
	require.Equal(t, ms(testStart)-1, f.ShippedUpTo())
}

func TestReadOnly(t *testing.T) {
	f := newFixture(t)
	f.push(new(batch).floats(named("m"), 1, ms(testStart)))
	f.SetReadOnly(true)
	b := new(batch).floats(named("m"), 2, ms(testStart)+1)
	err := f.Push(context.Background(), "a", &b.Batch, &duramenpb.PushResult{})
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	require.ErrorContains(t, err, "read-only")
	_, pushes := f.Unshipped()
	require.Zero(t, pushes)
	require.Len(t, f.read()[named("m").String()], 1)
	require.NoError(t, f.Empty(t.Context()), "it may cut and ship")
	f.SetReadOnly(false)
	f.push(new(batch).floats(named("m"), 2, ms(testStart)+1))
}
