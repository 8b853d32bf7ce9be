package app

import (
	"math"

	"github.com/duramendb/duramen/ring"
	"github.com/duramendb/duramen/tenant"
)

// rings is where the newest view of the cluster is had.
type rings interface{ Ring() *ring.Ring }

// ingesterLimits are a tenant's limits where one of them is this ingester's part of what the whole cluster allows.
type ingesterLimits struct {
	*tenant.Limits

	rings rings
	self  string
}

// unevenness is by how much an ingester's part of a tenant's series may exceed an equal one: the bar of placement.
const unevenness = 1.1

// MaxSeries is the tenant's limit divided by the ingesters that hold its series in this one's zone, as each zone holds
// each series once; with more zones than copies a zone holds only some. An ingester that shares with others is given a
// tenth more, for the parts are not quite equal and the limit is to be reached before one of them is full.
func (l ingesterLimits) MaxSeries(tenantID string) int {
	limit := l.Limits.MaxSeries(tenantID)
	if limit == 0 {
		return 0
	}
	return partOf(limit, l.fraction(tenantID))
}

func partOf(limit int, fraction float64) int {
	if fraction >= 1 {
		return limit
	}
	return max(1, min(limit, int(math.Ceil(float64(limit)*fraction*unevenness))))
}

func (l ingesterLimits) fraction(tenantID string) float64 {
	shard := l.IngestionTenantShardSize(tenantID)
	return l.rings.Ring().Tenant(tenantID, shard).Fraction(l.self)
}

// epochsOfFractions is above the number of fractions that differ: 65,536 ordinals times few zones.
const epochsOfFractions = 1 << 20

// Epoch changes with the tenant's limits, and with this ingester's part of them.
func (l ingesterLimits) Epoch(tenantID string) uint64 {
	fraction := uint64(l.fraction(tenantID) * (epochsOfFractions - 1))
	return l.Limits.Epoch(tenantID)*epochsOfFractions + fraction
}

// distributorLimits are a tenant's limits where the rate is this distributor's part of what the whole cluster allows. The
// epoch does not tell when that part changes, for no verdict on a series rests on it.
type distributorLimits struct {
	*tenant.Limits

	rings rings
}

// IngestionRate is the tenant's rate divided by the distributors that live, on the assumption that senders are spread
// over them.
func (l distributorLimits) IngestionRate(tenantID string) float64 {
	rate := l.Limits.IngestionRate(tenantID)
	if rate == 0 {
		return 0
	}
	return rate / float64(max(1, len(l.rings.Ring().Members(ring.RoleDistributor))))
}
