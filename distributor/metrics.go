package distributor

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/duramendb/duramen/duramenpb"
)

// metrics of the distributor. Those with a tenant live as long as the tenant's state here.
type metrics struct {
	requests  *prometheus.CounterVec
	retries   prometheus.Counter
	bodyBytes prometheus.Counter
	seconds   prometheus.Histogram

	received *prometheus.CounterVec
	refused  *prometheus.CounterVec
	dropped  *prometheus.CounterVec
	starts   prometheus.Counter

	hits      prometheus.Counter
	misses    prometheus.Counter
	stale     prometheus.Counter
	evictions prometheus.Counter
	mismatch  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, d *Distributor) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "duramen_distributor_" + name, Help: help})
	}
	vec := func(name, help string, by ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "duramen_distributor_" + name, Help: help}, by)
	}
	gauge := func(name, help string, value func() float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: "duramen_distributor_" + name, Help: help}, value)
	}
	gauge("inflight_bytes", "Memory held by requests in flight. Near the limit, writes are answered with 503.",
		func() float64 { return float64(d.inflight.Load()) })
	gauge("series_cache_bytes", "Memory of the series caches. At the limit, series are evicted and writes cost more.",
		func() float64 { return float64(d.tenants.bytes.Load()) })
	gauge("series_cache_entries", "Series in the caches of all tenants. A rise is a rise in active series, and takes memory.",
		func() float64 { return float64(d.tenants.entries()) })
	gauge("tenants", "Tenants that wrote within the last half hour. A fall means that senders are gone.",
		func() float64 { return float64(d.tenants.count()) })
	return &metrics{
		requests: vec("requests_total", "Write requests by format and how they ended. A rise of anything but ok is a "+
			"sender's or our trouble.",
			"format", "result"),
		retries: counter("retried_requests_total",
			"Requests that say they are a retry. A rise means senders got errors or timed out."),
		bodyBytes: counter("body_bytes_total", "Bytes of request bodies after decompression. A rise without more samples "+
			"means longer labels or smaller requests."),
		seconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "duramen_distributor_push_seconds", Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5, 30},
			Help: "Time from a received body to its answer. A rise means that ingesters are slow.",
		}),
		received: vec("received_samples_total", "Samples received, whatever became of them. Its rate is "+
			"the tenant's load; a fall means that its senders are gone.", "tenant"),
		refused: vec("refused_samples_total", "Samples refused for good by reason. A rise means that they are "+
			"lost to the sender.",
			"tenant", "reason"),
		dropped: vec("dropped_total", "Exemplars and metadata that could not be used. A rise means that a sender writes wrong "+
			"ones; requests do not fail for them.",
			"what"),
		starts: counter("start_timestamps_total", "Samples that carry a start timestamp. A rise means that senders were set to "+
			"send them; -ingester.start-timestamps says what becomes of them."),
		hits: counter("series_cache_hits_total", "Series that went on by reference. A fall beside misses means dearer writes."),
		misses: counter("series_cache_misses_total",
			"Series whose labels had to be built. A steady rise means churn or too small a cache."),
		stale: counter("stale_series_total",
			"Series sent again with labels since the ingester did not know the reference. It rises when TSDBs reopen."),
		evictions: counter("series_cache_evictions_total",
			"Series evicted to keep within the budget. A rise means that the cache is too small."),
		mismatch: counter("unaccounted_pushes_total",
			"Pushes whose verdict did not account for every sample. Any rise is a bug; the sender retries."),
	}
}

// tenantMetrics are one tenant's counters, resolved once.
type tenantMetrics struct{ received prometheus.Counter }

func (m *metrics) forTenant(id string) tenantMetrics {
	return tenantMetrics{received: m.received.WithLabelValues(id)}
}

func (m *metrics) countRefused(id string, reason duramenpb.Reason, samples int) {
	m.refused.WithLabelValues(id, string(reason)).Add(float64(samples))
}

func (m *metrics) forget(id string) {
	m.received.DeleteLabelValues(id)
	m.refused.DeletePartialMatch(prometheus.Labels{"tenant": id})
}
