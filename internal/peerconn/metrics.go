package peerconn

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	failing        prometheus.Gauge
	silences       prometheus.Counter
	connects       prometheus.Counter
	sent, received prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		failing: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_peerconn_failing",
			Help: "Other processes that cannot be reached or are silent at the moment. Any means that calls to them fail at once.",
		}),
		silences: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_peerconn_silences_total",
			Help: "Times that another process owed an answer and sent no byte for the silence timeout. A rise means that " +
				"processes hang, or that a network drops packets.",
		}),
		connects: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_peerconn_connects_total",
			Help: "Connections made to other processes. A rise beyond restarts means that connections break.",
		}),
		sent: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_peerconn_sent_bytes_total",
			Help: "Bytes sent over connections to other processes, all but TCP's own headers. A rise means more load.",
		}),
		received: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_peerconn_received_bytes_total",
			Help: "Bytes received over connections to other processes, all but TCP's own headers. A rise means more load.",
		}),
	}
}
