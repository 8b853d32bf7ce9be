package oracle

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/countbucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/manifest/reconcile"
	"github.com/duramendb/duramen/compactor"
)

// listPage is how many names a request for a list returns at most.
const listPage = 1000

// TestIdleTenantsCostLittle counts the requests of a process that has all tenants and nothing to do: compactor and
// reconciler with their settings as they come, sharing what they know of manifests. A few tenants stand for all.
func TestIdleTenantsCostLittle(t *testing.T) {
	const tenants, run, most = 10_000, 40, 200_000
	dir := tempDir(t)
	synctest.Test(t, func(t *testing.T) {
		const ago = 30 * 24 * time.Hour
		before := func() time.Time { return time.Now().Add(-ago) }
		now := before
		inner := bucket.NewInMemoryWithClock(func() time.Time { return now() })
		owner := manifest.NewOwner(inner, before, nopLog, nil)
		day := before().UnixMilli() / day * day
		for i := range run {
			b, err := blockgen.Build(blockgen.Options{
				ULID: blockgen.ULID(day, uint64(i)), MinTime: day, MaxTime: day + blockgen.SlotLength, Sidecar: true,
			}, nil)
			require.NoError(t, err)
			tenantID := fmt.Sprint("tenant-", i)
			require.NoError(t, b.Put(t.Context(), inner, tenantID))
			_, err = owner.Add(t.Context(), tenantID, b.Entry)
			require.NoError(t, err)
		}
		now = time.Now
		bkt := countbucket.New(inner)
		owner = manifest.NewOwner(bkt, time.Now, nopLog, nil)
		var rc reconcile.Config
		rc.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
		r, err := reconcile.New(rc, bkt, owner, time.Now, nopLog, nil)
		require.NoError(t, err)
		var cc compactor.Config
		cc.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
		cc.Dir, cc.Writer = dir, manifest.CompactorWriter+"a"
		c, err := compactor.New(cc, bkt, owner, noLimits{}, alone{&clock{t: time.Now()}}, time.Now, nopLog, nil)
		require.NoError(t, err)
		sweeping, compacting := r.Service(), c.Service()
		require.NoError(t, sweeping.Start(t.Context()))
		require.NoError(t, compacting.Start(t.Context()))
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
		}
		require.NoError(t, compacting.Stop())
		require.NoError(t, sweeping.Stop())
	})
}
