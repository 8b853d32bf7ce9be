package app

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/ring"
	"github.com/duramendb/duramen/tenant"
)

// fixedRings is a view of the cluster that a test replaces.
type fixedRings struct{ r *ring.Ring }

func (f *fixedRings) Ring() *ring.Ring { return f.r }

// ringOf has so many zones of so many members each that play all roles.
func ringOf(zones, each int) *ring.Ring {
	now := time.UnixMilli(1_000_000)
	table := ring.NewTable()
	for z := range zones {
		for i := range each {
			ring.Merge(table, now, ring.MemberEntry(ring.Member{
				ID: fmt.Sprintf("i-%d-%d", z, i), Zone: fmt.Sprint("z", z), Ordinal: i, State: ring.Active, Epoch: 1, Counter: 1,
				Roles: []ring.Role{ring.RoleIngester, ring.RoleDistributor}, Heartbeat: now.UnixMilli(),
			}))
		}
	}
	return ring.New(ring.Config{}, table.Entries(), now)
}

func TestLimitsOfTheClusterAreShared(t *testing.T) {
	v := tenant.DefaultValues()
	v.MaxSeries, v.IngestionRate = 1000, 600
	limits := tenant.StaticLimits(v)
	views := &fixedRings{ringOf(3, 1)}
	series, rate := ingesterLimits{limits, views, "i-0-0"}, distributorLimits{limits, views}
	require.Equal(t, 1000, series.MaxSeries("a"), "each zone holds each series once")
	require.EqualValues(t, 200, rate.IngestionRate("a"))
	before := series.Epoch("a")

	views.r = ringOf(3, 4)
	require.Equal(t, 275, series.MaxSeries("a"))
	require.EqualValues(t, 50, rate.IngestionRate("a"))
	require.NotEqual(t, before, series.Epoch("a"), "the limit is another one")
	require.Equal(t, limits.Epoch("a"), rate.Epoch("a"), "labels need not be looked at again")

	views.r = ringOf(5, 1)
	require.Equal(t, 660, series.MaxSeries("a"), "of five zones each holds three fifths")
	views.r = ringOf(3, 1)
	require.Equal(t, before, series.Epoch("a"))

	v.IngestionTenantShardSize = 6
	series.Limits = tenant.StaticLimits(v)
	views.r = ringOf(3, 4)
	mine := 0
	for i := range 4 {
		series.self = fmt.Sprintf("i-0-%d", i)
		if series.MaxSeries("a") == 550 {
			mine++
		}
	}
	require.Equal(t, 2, mine, "two of the zone share the tenant's series")

	none := tenant.StaticLimits(tenant.DefaultValues())
	require.Zero(t, ingesterLimits{none, views, "i-0-0"}.MaxSeries("a"))
	require.Zero(t, distributorLimits{none, views}.IngestionRate("a"))
}
