package reconcile

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/countbucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// listPage is how many entries a store returns for one request of a listing.
const listPage = 1000

func defaults() Config {
	var c Config
	c.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	return c
}

// quietTenants is a bucket with a block for each of many tenants, none of which has changed for a month.
func quietTenants(t *testing.T, n int) *countbucket.Bucket {
	t.Helper()
	ago := 30 * 24 * time.Hour
	inner := bucket.NewInMemoryWithClock(func() time.Time { return time.Now().Add(-ago) })
	c := &clock{time.Now().Add(-ago)}
	o := newOwner(inner, c)
	for i := range n {
		tenantID := fmt.Sprintf("tenant-%05d", i)
		_, err := o.Add(t.Context(), tenantID, putBlock(t, inner, spec{n: 0, writer: ingester, tenant: tenantID}))
		require.NoError(t, err)
	}
	ago = 0
	return countbucket.New(inner)
}

// TestIdleTenantsCostLittle is the bar for 10,000 tenants to which nothing happens: 0.2 million requests a day, of which
// the first day of a process has the listing of each. All tenants cost the same, so a few of them are run.
func TestIdleTenantsCostLittle(t *testing.T) {
	const tenants, run, most = 10_000, 50, 200_000
	synctest.Test(t, func(t *testing.T) {
		bkt := quietTenants(t, run)
		owner := manifest.NewOwner(bkt, time.Now, discard(), nil)
		r, err := New(defaults(), bkt, owner, time.Now, discard(), nil)
		require.NoError(t, err)
		s := r.Service()
		require.NoError(t, s.Start(t.Context()))
		for day := range 3 {
			bkt.Reset()
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			fixed, each := 0, 0
			for _, op := range bkt.Ops() {
				switch {
				case op.Method == "List" && op.Key == "":
					fixed += tenants / listPage
				case strings.HasPrefix(op.Key, "tenant-"):
					each++
				default:
					fixed++
				}
			}
			total := fixed + each*tenants/run
			t.Logf("day %d: %.1f requests a tenant and %d beside, %d for %d", day+1, float64(each)/run, fixed, total, tenants)
			require.LessOrEqual(t, total, most)
			require.GreaterOrEqual(t, each, 3*run, "it is not asleep")
		}
		require.NoError(t, s.Stop())
	})
}

// resting is a fixture with the settings as they come.
func resting(t *testing.T) (*fixture, *countbucket.Bucket) {
	t.Helper()
	f := newFixture(t)
	counted := countbucket.New(f.bkt)
	o := newOwner(counted, f.clock)
	r, err := New(defaults(), counted, o, f.now, discard(), nil)
	require.NoError(t, err)
	f.o, f.r = o, r
	return f, counted
}

// listings lets time pass, ten minutes at a time, and returns how often the tenant's folder was listed.
func (f *fixture) listings(bkt *countbucket.Bucket, d time.Duration) int {
	f.t.Helper()
	bkt.Reset()
	for range d / (10 * time.Minute) {
		f.advance(10 * time.Minute)
		require.NoError(f.t, f.r.Pass(f.t.Context(), 0))
	}
	n := 0
	for _, op := range bkt.Ops() {
		if op.Method == "List" && op.Key == testTenant+"/" {
			n++
		}
	}
	return n
}

// TestBusyTenantsKeepTheirRhythm: who gets blocks is listed every time, and again as soon as another process adds one.
func TestBusyTenantsKeepTheirRhythm(t *testing.T) {
	f, bkt := resting(t)
	f.add(spec{n: 0, writer: ingester})
	require.Equal(t, 12, f.listings(bkt, 2*time.Hour))
	require.Less(t, f.listings(bkt, 24*time.Hour), 48)
	f.listings(bkt, 30*24*time.Hour)
	require.LessOrEqual(t, f.listings(bkt, 10*24*time.Hour), 11, "once a day in the end")

	other := newOwner(f.bkt, f.clock)
	_, err := other.Add(t.Context(), testTenant, f.put(spec{n: 1, writer: ingester}))
	require.NoError(t, err)
	require.GreaterOrEqual(t, f.listings(bkt, 4*time.Hour), 11, "seen after two hours at most")
	f.listings(bkt, 30*24*time.Hour)
	f.add(spec{n: 2, writer: ingester})
	require.Equal(t, 1, f.listings(bkt, 10*time.Minute), "an own change is seen at once")
}

// TestWhatWaitsIsDoneInTime: an idle tenant is looked at when something in it comes of age.
func TestWhatWaitsIsDoneInTime(t *testing.T) {
	f, bkt := resting(t)
	f.add(spec{n: 0, writer: ingester}, spec{n: 1, writer: ingester})
	f.listings(bkt, 60*24*time.Hour)
	_, err := f.o.Swap(t.Context(), testTenant, manifest.Change{Drop: ids(0)})
	require.NoError(t, err)
	put(t, f.bkt, strings.Replace(testTenant+"/ID/index", "ID", id(9).String(), 1), "half an upload")
	f.listings(bkt, 10*time.Minute)
	f.r.tenants[testTenant].rest.again = true // or a day later: nothing tells of a lost upload
	f.listings(bkt, 100*time.Minute)
	require.NotEmpty(t, f.objects(0))
	f.listings(bkt, 30*time.Minute)
	require.Empty(t, f.objects(0), "deleted two hours after it was dropped")
	require.NotEmpty(t, f.objects(9))
	f.listings(bkt, 21*time.Hour+20*time.Minute)
	require.NotEmpty(t, f.objects(9))
	f.listings(bkt, 30*time.Minute)
	require.Empty(t, f.objects(9), "an upload that was given up goes after a day")
	require.Len(t, newest(t, f.bkt, f.clock).Removed, 1)
	f.listings(bkt, 24*time.Hour+30*time.Minute)
	require.Empty(t, newest(t, f.bkt, f.clock).Removed)
}

// TestIndexOfIdleTenants: peers' index is kept fresh for a day, and then as the setting says.
func TestIndexOfIdleTenants(t *testing.T) {
	indexes := func(f *fixture, bkt *countbucket.Bucket, d time.Duration) int {
		f.listings(bkt, d)
		n := 0
		for _, op := range bkt.Ops() {
			if op.Method == "Put" && strings.HasSuffix(op.Key, indexName) {
				n++
			}
		}
		return n
	}
	f, bkt := resting(t)
	f.add(spec{n: 0, writer: ingester})
	require.Equal(t, 72, indexes(f, bkt, 24*time.Hour))
	require.LessOrEqual(t, indexes(f, bkt, 10*24*time.Hour), 11)
	f.r.cfg.IdlePeerFilesInterval = 0
	require.Equal(t, 72, indexes(f, bkt, 24*time.Hour))
}
