package reconcile

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tenantmark"
)

// TestTenantsThatPeersDelete: a peer's mark, in either place, is a request; nothing is lost in the time of grace, and after
// it a receipt is left.
func TestTenantsThatPeersDelete(t *testing.T) {
	for _, key := range []string{tenantmark.InFolderKey(testTenant), tenantmark.Key(testTenant)} {
		f := newFixture(t)
		f.add(spec{n: 0})
		f.put(spec{n: 1})
		put(t, f.bkt, testTenant+"x/some/object", "x")
		put(t, f.bkt, key, "{}")
		f.requireListed(0)
		require.True(t, f.pass().Deleting())
		require.True(t, compared(t, f), "queries are told what it is")
		require.EqualValues(t, 1, testutil.ToFloat64(f.r.metrics.doomed))
		f.advance(23 * time.Hour)
		f.requireListed(0)
		require.NotEmpty(t, f.objects(0))
		f.advance(2 * time.Hour)
		m := f.pass()
		require.NotZero(t, m.Doomed.FinishedAt)
		require.Equal(t, 1, m.Doomed.Blocks)
		require.EqualValues(t, 1, testutil.ToFloat64(f.r.metrics.purged))
		for range 3 { // and nothing grows on it again
			f.advance(25 * time.Hour)
			f.pass()
			require.Equal(t, []string{manifest.Key(testTenant, m.Version)}, there(t, f.bkt, testTenant+"/"))
		}
		require.Len(t, there(t, f.bkt, testTenant+"x/"), 1)
		require.Zero(t, testutil.ToFloat64(f.r.metrics.doomed))
	}
}

// requests takes those of another process.
func (f *fixture) requests() *tenantmark.Requests {
	return tenantmark.NewRequests(f.bkt, newOwner(f.bkt, f.clock), 24*time.Hour, nil)
}

// TestDeletionThatIsTakenBack: by another process, whatever this one remembers; nothing is lost and the mark stays away.
func TestDeletionThatIsTakenBack(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0}, spec{n: 1})
	before := there(t, f.bkt, testTenant+"/0")
	_, err := f.requests().Delete(t.Context(), testTenant)
	require.NoError(t, err)
	require.True(t, f.pass().Deleting())
	_, err = f.requests().Undelete(t.Context(), testTenant)
	require.NoError(t, err)
	f.requireListed(0, 1)
	f.advance(100 * time.Hour)
	f.requireListed(0, 1)
	require.Equal(t, before, there(t, f.bkt, testTenant+"/0"))
	require.Empty(t, there(t, f.bkt, tenantmark.Prefix))
}

// TestPurgeWaitsForWriters: as long as this process writes something for a tenant, its receipt does not say that nothing is left.
func TestPurgeWaitsForWriters(t *testing.T) {
	f := newFixture(t)
	writing, asked := true, 0
	f.r.cfg.Stop = func(id string) bool { asked++; return id == testTenant && !writing }
	f.add(spec{n: 0})
	_, err := f.requests().Delete(t.Context(), testTenant)
	require.NoError(t, err)
	f.requireListed(0)
	require.Zero(t, asked, "what runs may go on in the time of grace")
	f.advance(25 * time.Hour)
	f.requireListed(0)
	require.Positive(t, asked)
	f.put(spec{n: 1, writer: compactor})
	writing = false
	m := f.pass()
	require.NotZero(t, m.Doomed.FinishedAt)
	require.Equal(t, []string{manifest.Key(testTenant, m.Version)}, there(t, f.bkt, testTenant+"/"))

	// What another process has uploaded meanwhile goes soon.
	f.put(spec{n: 2, writer: ingester})
	f.pass()
	require.NotEmpty(t, f.objects(2))
	f.advance(settleTime)
	f.pass()
	require.Empty(t, f.objects(2))
}

// TestMarkAndManifestAreBroughtInStep: the manifest decides when one of the two was written alone.
func TestMarkAndManifestAreBroughtInStep(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0})
	_, err := f.requests().Delete(t.Context(), testTenant)
	require.NoError(t, err)
	require.NoError(t, tenantmark.Remove(t.Context(), f.bkt, testTenant))
	f.pass()
	require.Empty(t, there(t, f.bkt, tenantmark.Prefix), "perhaps it is being taken back")
	f.advance(time.Minute)
	f.pass()
	require.Len(t, there(t, f.bkt, tenantmark.Prefix), 1)

	// Taken back, and cut off before the mark was removed.
	require.NoError(t, newOwner(f.bkt, f.clock).Reprieve(t.Context(), testTenant))
	f.advance(3 * time.Hour)
	f.pass()
	require.Empty(t, there(t, f.bkt, tenantmark.Prefix))
	f.requireListed(0)
}

// TestADeletedTenantDoesNotComeBack: what an ingester that was away for long puts into the bucket is no adoption, and a new
// block is.
func TestADeletedTenantDoesNotComeBack(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0, writer: ingester})
	_, err := f.requests().Delete(t.Context(), testTenant)
	require.NoError(t, err)
	f.advance(25 * time.Hour)
	f.pass()
	f.put(spec{n: 1, writer: ingester})
	f.requireListed()
	f.advance(25 * time.Hour)
	f.pass()
	require.Empty(t, f.objects(1))
}
