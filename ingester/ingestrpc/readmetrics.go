package ingestrpc

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type readServerMetrics struct {
	open    prometheus.Gauge
	series  prometheus.Counter
	chunks  prometheus.Counter
	bytes   prometheus.Counter
	refused prometheus.Counter
	stalled prometheus.Counter
}

func newReadServerMetrics(reg prometheus.Registerer) *readServerMetrics {
	f := promauto.With(reg)
	return &readServerMetrics{
		open: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_ingest_read_calls_in_flight",
			Help: "Reads of other processes that are being answered. A rise that lasts means that queries come faster than " +
				"they are done, or that queriers are slow to read.",
		}),
		series: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_ingest_read_sent_series_total",
			Help: "Series sent to queriers. A rise means more or wider queries.",
		}),
		chunks: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_ingest_read_sent_chunks_total",
			Help: "Chunks sent to queriers. A rise means more, wider or longer queries.",
		}),
		bytes: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_ingest_read_sent_bytes_total",
			Help: "Bytes of answers sent to queriers. A rise means more or wider queries.",
		}),
		refused: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_ingest_read_refused_total",
			Help: "Reads refused because too many were being answered, altogether or of one tenant. A rise means that queries " +
				"come faster than they are done.",
		}),
		stalled: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_ingest_read_stalled_total",
			Help: "Answers ended because the querier left unread what was sent. A rise means queriers that hang, or whose own " +
				"clients read slowly.",
		}),
	}
}

// How a call ended.
const (
	outcomeAnswered = "answered"
	outcomeRefused  = "refused"
	outcomeAway     = "away"
	outcomeLeft     = "left"
)

type readClientMetrics struct {
	calls *prometheus.CounterVec
	bytes prometheus.Counter
}

func newReadClientMetrics(reg prometheus.Registerer) *readClientMetrics {
	f := promauto.With(reg)
	m := &readClientMetrics{
		calls: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_ingest_read_client_calls_total",
			Help: "Reads from ingesters: answered in full, refused by the ingester, broken because it was away, and left by " +
				"the query before the end. A rise of away means that ingesters or the way to them fail.",
		}, []string{"outcome"}),
		bytes: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_ingest_read_client_received_bytes_total",
			Help: "Bytes of answers received from ingesters. A rise means more or wider queries.",
		}),
	}
	for _, o := range []string{outcomeAnswered, outcomeRefused, outcomeAway, outcomeLeft} {
		m.calls.WithLabelValues(o)
	}
	return m
}
