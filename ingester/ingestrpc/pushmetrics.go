package ingestrpc

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Why a section was not sent, or got no answer.
const (
	failedAway    = "away"     // the connection fails or broke
	failedFull    = "full"     // too much is on its way
	failedLate    = "late"     // no answer in time
	failedRefused = "answered" // the ingester answered with an error
	failedClosed  = "closed"   // this process stops
)

type clientMetrics struct {
	sections prometheus.Counter
	stored   prometheus.Counter
	failed   *prometheus.CounterVec
	frames   prometheus.Counter
	bytes    prometheus.Counter
	inflight prometheus.Gauge
}

func newClientMetrics(reg prometheus.Registerer) *clientMetrics {
	f := promauto.With(reg)
	m := &clientMetrics{
		sections: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_ingest_client_sections_total",
			Help: "Sections of writes for other ingesters: what one of them gets of a request. A rise means more load.",
		}),
		stored: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_ingest_client_stored_sections_total",
			Help: "Sections that the ingester has stored, or refused by name. A rise means more load.",
		}),
		failed: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_ingest_client_failed_sections_total",
			Help: "Sections without a verdict, by reason: the ingester was away, owed too many answers already (full), did not " +
				"answer in time (late), answered with an error, or this process was stopping. A rise means that replicas lack " +
				"what others have.",
		}, []string{"reason"}),
		frames: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_ingest_client_frames_total",
			Help: "Frames sent to other ingesters; each carries the sections that came together. A rise means more load.",
		}),
		bytes: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_ingest_client_sent_bytes_total",
			Help: "Bytes of those frames. A rise means more load, or series that go with labels.",
		}),
		inflight: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_ingest_client_inflight_bytes",
			Help: "Bytes of sections that have no answer yet, of all ingesters. A rise that lasts means slow ingesters.",
		}),
	}
	for _, reason := range []string{failedAway, failedFull, failedLate, failedRefused, failedClosed} {
		m.failed.WithLabelValues(reason)
	}
	return m
}

type serverMetrics struct {
	streams        prometheus.Gauge
	stored, failed prometheus.Counter
	pushes         prometheus.Counter
	received       prometheus.Counter
	buffered       prometheus.Gauge
	panics         prometheus.Counter
}

func newServerMetrics(reg prometheus.Registerer) *serverMetrics {
	f := promauto.With(reg)
	return &serverMetrics{
		streams: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_ingest_server_streams",
			Help: "Open streams of writes, two of each distributor that writes here. A rise means more distributors.",
		}),
		stored: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_ingest_server_stored_sections_total",
			Help: "Sections of writes that were stored, or refused by name. A rise means more load.",
		}),
		failed: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_ingest_server_failed_sections_total",
			Help: "Sections of writes that were answered with an error. A rise means that this replica lacks what others have.",
		}),
		pushes: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_ingest_server_pushes_total",
			Help: "Pushes into the ingester. Sections of a tenant that come together share one: the fewer the cheaper. A rise " +
				"means more load.",
		}),
		received: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_ingest_server_received_bytes_total",
			Help: "Bytes of frames of writes that arrived. A rise means more load.",
		}),
		buffered: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_ingest_server_buffered_bytes",
			Help: "Bytes of sections that wait to be stored. A rise that lasts means that the ingester is too slow for its load.",
		}),
		panics: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_ingest_server_panics_total",
			Help: "Pushes that panicked. Any rise is a bug; the log has the stack.",
		}),
	}
}

// answered counts a section that leaves the buffer.
func (m *serverMetrics) answered(err error, bytes int) {
	m.buffered.Sub(float64(bytes))
	if err != nil {
		m.failed.Inc()
	} else {
		m.stored.Inc()
	}
}
