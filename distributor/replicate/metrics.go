package replicate

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// Values of the label of late answers, and why sections are sent again.
const (
	lateStored  = "stored"
	lateRefused = "refused"
	lateFailed  = "failed"

	retryFailed = "failed"
	retryStale  = "stale"
	retryMoved  = "moved"
)

// metrics of the Replicator. Those of a member live as long as it is in the ring.
type metrics struct {
	pushes   *prometheus.CounterVec
	noQuorum prometheus.Counter
	late     *prometheus.CounterVec
	retries  *prometheus.CounterVec
	mismatch prometheus.Counter

	sends   *prometheus.CounterVec
	fails   *prometheus.CounterVec
	bytes   prometheus.Counter
	samples prometheus.Counter

	evictions prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, r *Replicator) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "duramen_replicate_" + name, Help: help})
	}
	vec := func(name, help string, by ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "duramen_replicate_" + name, Help: help}, by)
	}
	gauge := func(name, help string, value func() float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: "duramen_replicate_" + name, Help: help}, value)
	}
	gauge("inflight_bytes", "Memory of what is on its way to ingesters. Near the limit, writes are answered with 503.",
		func() float64 { return float64(r.inflight.Load()) })
	gauge("late_bytes", "Memory of what ingesters have not answered although the requests are. A rise means that one is slow; "+
		"at the limit the slowest get nothing.", func() float64 { return float64(r.lateBytes.Load()) })
	gauge("table_bytes", "Memory of the tables of known series. At the limit, series are evicted and writes cost more.",
		func() float64 { return float64(r.tables.bytes.Load()) })
	gauge("table_series", "Series in the tables of all tenants. A rise is a rise in active series, and takes memory.",
		func() float64 { return float64(r.tables.series()) })
	return &metrics{
		pushes: vec("pushes_total", "Batches by how they ended. A rise of anything but ok is a sender's or our trouble.",
			"result"),
		noQuorum: counter("no_quorum_total",
			"Batches with samples that no quorum of replicas took. A rise means that ingesters of two zones do not answer."),
		late: vec("late_answers_total", "Answers that came after their request was answered, by what they said. A rise of "+
			"failed means that replicas lack samples which others have.", "result"),
		retries: vec("retries_total", "Sections sent again: failed for want of a quorum, stale with labels since the ingester "+
			"did not know the references, moved to another ingester. Stale rises when ingesters restart.", "why"),
		mismatch: counter("unaccounted_verdicts_total", "Verdicts of ingesters that did not account for every sample once. "+
			"Any rise is a bug; the sections count as failed."),
		sends: vec("sections_total", "Sections sent to each ingester. A fall of one means that it gets fewer series.", "member"),
		fails: vec("section_failures_total",
			"Sections that an ingester did not answer for. A rise means that it is down, slow or unreachable.", "member"),
		bytes: counter("section_bytes_total",
			"Bytes encoded for ingesters. A rise against the samples means that more series go with labels."),
		samples: counter("section_samples_total",
			"Samples encoded for ingesters, once for each replica. It rises with the load and the number of replicas."),
		evictions: counter("table_evictions_total",
			"Series evicted to keep within the budget. A rise means that the table is too small."),
	}
}

// count counts how a push ended.
func (m *metrics) count(res *duramenpb.PushResult, err error) {
	result := "ok"
	switch {
	case err != nil:
		result = errkind.Of(err).String()
	case len(res.Refused) > 0:
		result = "refused"
	}
	m.pushes.WithLabelValues(result).Inc()
}

// forgetGone drops the counters of members that are in the ring no more.
func (m *metrics) forgetGone(old, now *view) {
	if old == nil {
		return
	}
	for n, gone := range old.members {
		if gone != nil && now.members[n] == nil {
			m.sends.DeleteLabelValues(gone.id)
			m.fails.DeleteLabelValues(gone.id)
		}
	}
}
