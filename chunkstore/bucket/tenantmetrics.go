package bucket

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// tenantIdle is how long a tenant's counters stay after its last operation. Tenants that write ship a block every
	// two hours; their counters must not come and go in between.
	tenantIdle = 24 * time.Hour
	// sweepInterval is how often idle tenants are looked for, while there are operations of any.
	sweepInterval = 10 * time.Minute
)

// tenants holds the counters of each tenant. A name gets counters when something is written under it or has been read:
// a name in the header of a query is not yet a tenant, and would be a way to fill memory.
type tenants struct {
	vecs  counterVecs
	swept atomic.Int64 // Unix seconds

	mu   sync.RWMutex
	byID map[string]*tenantCounters
}

// tenantCounters are those of one tenant.
type tenantCounters struct {
	id    string
	used  atomic.Int64 // Unix seconds; written under tenants.mu, read by the sweep
	cells [numOperations]atomic.Pointer[counters]
}

func newTenants(vecs counterVecs, now time.Time) *tenants {
	t := &tenants{vecs: vecs, byID: map[string]*tenantCounters{}}
	t.swept.Store(now.Unix())
	return t
}

// find returns the counters of a tenant, nil when it has none, and now and then deletes those of tenants that idle.
func (t *tenants) find(id string, now time.Time) *tenantCounters {
	swept := t.swept.Load()
	if now.Unix()-swept >= int64(sweepInterval.Seconds()) && t.swept.CompareAndSwap(swept, now.Unix()) {
		t.sweep(now)
	}
	if id == "" {
		return nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	c := t.byID[id]
	if c != nil {
		c.used.Store(now.Unix())
	}
	return c
}

// know gives the tenant of an operation counters unless it has some: its object was written, or read.
func (t *tenants) know(c *call, key string) {
	if c.tenant != nil {
		return
	}
	id, _ := classify(key)
	if id == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.tenant = t.byID[id]; c.tenant == nil {
		c.tenant = &tenantCounters{id: strings.Clone(id)}
		t.byID[c.tenant.id] = c.tenant
	}
	c.tenant.used.Store(c.began.Unix())
}

// counters returns those of one operation.
func (t *tenants) counters(c *tenantCounters, op operation) *counters {
	k := c.cells[op].Load()
	if k == nil {
		k = t.vecs.counters(c.id, operationNames[op])
		c.cells[op].Store(k)
	}
	return k
}

// sweep deletes the counters of tenants without an operation for tenantIdle.
func (t *tenants) sweep(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, c := range t.byID {
		if now.Unix()-c.used.Load() < int64(tenantIdle.Seconds()) {
			continue
		}
		delete(t.byID, id)
		t.vecs.forget(prometheus.Labels{"tenant": id})
	}
}
