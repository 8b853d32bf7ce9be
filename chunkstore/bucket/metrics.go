package bucket

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// operation is a method of Bucket.
type operation uint8

const (
	opGet operation = iota
	opGetRange
	opStat
	opPut
	opPutIfAbsent
	opList
	opDelete
	numOperations
)

var operationNames = [numOperations]string{"get", "get_range", "stat", "put", "put_if_absent", "list", "delete"}

// metrics finds the counters of an operation without looking up labels, and so without allocating.
type metrics struct {
	seconds [numOperations]prometheus.Observer
	vecs    counterVecs
	cells   [numOperations][numKinds]atomic.Pointer[counters]
	tenants *tenants
}

func newMetrics(now func() time.Time, reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	seconds := f.NewHistogramVec(prometheus.HistogramOpts{
		Name: "duramen_bucket_operation_duration_seconds",
		Help: "Time until an operation was done, for get and get_range until the body began; a rise means a " +
			"slow object store.",
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 9), // 1 ms to 65 s
	}, []string{"operation"})
	m := &metrics{
		vecs:    newCounterVecs(f, "duramen_bucket_", "", "operation", "kind"),
		tenants: newTenants(newCounterVecs(f, "duramen_bucket_tenant_", " of one tenant", "tenant", "operation"), now()),
	}
	for op, name := range operationNames {
		m.seconds[op] = seconds.WithLabelValues(name)
	}
	return m
}

// count adds n operations that took seconds, the bytes of c, and a failure, to the kind and to the tenant.
func (m *metrics) count(c call, seconds float64, n int, failed bool) {
	cell := &m.cells[c.op][c.kind]
	k := cell.Load()
	if k == nil {
		k = m.vecs.counters(operationNames[c.op], kindNames[c.kind])
		cell.Store(k) // of two that do so at once both have the same counters
	}
	k.add(c, seconds, n, failed)
	if c.tenant != nil {
		m.tenants.counters(c.tenant, c.op).add(c, seconds, n, failed)
	}
}

// counterVecs are the counters of all operations under one pair of labels.
type counterVecs struct{ operations, failures, seconds, bytes *prometheus.CounterVec }

func newCounterVecs(f promauto.Factory, prefix, of string, labels ...string) counterVecs {
	vec := func(name, help string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
	}
	return counterVecs{
		operations: vec("operations_total", "Operations"+of+" asked of the object store; a rise without a rise in load "+
			"means that caches miss."),
		failures: vec("operation_failures_total", "Operations"+of+" that failed, a missing object, a lost put-if-absent "+
			"and a caller who went away not counted; a rise means that the object store or the way to it is in trouble."),
		seconds: vec("operation_seconds_total", "Time that operations"+of+" took, for get and get_range until the body "+
			"began; a rise beyond that of operations means a slow object store."),
		bytes: vec("transferred_bytes_total", "Bytes of bodies"+of+" sent to and received from the object store; a rise "+
			"without a rise in load means that caches miss or that uploads are repeated."),
	}
}

// counters are those of one operation and one kind, or one tenant.
type counters struct{ operations, failures, seconds, bytes prometheus.Counter }

func (v counterVecs) counters(labels ...string) *counters {
	return &counters{
		operations: v.operations.WithLabelValues(labels...),
		failures:   v.failures.WithLabelValues(labels...),
		seconds:    v.seconds.WithLabelValues(labels...),
		bytes:      v.bytes.WithLabelValues(labels...),
	}
}

func (k *counters) add(c call, seconds float64, n int, failed bool) {
	k.operations.Add(float64(n))
	k.seconds.Add(seconds)
	k.bytes.Add(float64(c.bytes))
	if failed {
		k.failures.Inc()
	}
}

// forget deletes the counters with these labels.
func (v counterVecs) forget(l prometheus.Labels) {
	for _, vec := range []*prometheus.CounterVec{v.operations, v.failures, v.seconds, v.bytes} {
		vec.DeletePartialMatch(l)
	}
}
