package gateway

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// What the server sends.
const (
	sentSeries = "series"
	sentChunks = "chunks"
)

type serverMetrics struct {
	series    prometheus.Counter
	sentBytes *prometheus.CounterVec
	yields    prometheus.Counter
}

func newServerMetrics(reg prometheus.Registerer) *serverMetrics {
	f := promauto.With(reg)
	m := &serverMetrics{
		series: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_gateway_sent_series_total",
			Help: "Series sent to queriers, each counted for every block that has it. A rise means more or wider queries.",
		}),
		sentBytes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_gateway_sent_bytes_total",
			Help: "Bytes sent to queriers, by what they are. A rise means more or wider queries.",
		}, []string{"kind"}),
		yields: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_gateway_yields_total",
			Help: "Times that a query gave up buffers because its querier took too long to ask for more. A rise means that " +
				"queriers are busy, and that some bytes are read twice.",
		}),
	}
	m.sentBytes.WithLabelValues(sentSeries)
	m.sentBytes.WithLabelValues(sentChunks)
	return m
}

// How a request to a member ended.
const (
	outcomeOpened = "opened"
	outcomeFailed = "failed"
	outcomeBroken = "broken"
)

type clientMetrics struct {
	requests *prometheus.CounterVec
	seeks    prometheus.Counter
	received prometheus.Counter
}

func newClientMetrics(reg prometheus.Registerer) *clientMetrics {
	f := promauto.With(reg)
	m := &clientMetrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_gateway_client_requests_total",
			Help: "Requests to store-gateways: opened ones, those that failed before, and those that broke after it. A rise " +
				"of the latter two means that members are away or in trouble; their blocks were asked of others.",
		}, []string{"outcome"}),
		seeks: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_gateway_client_seeks_total",
			Help: "Readings that did not go on where the one before ended. A rise means that series are read out of order, " +
				"which costs bytes.",
		}),
		received: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_gateway_client_received_bytes_total",
			Help: "Bytes of frames received from store-gateways. A rise means more or wider queries.",
		}),
	}
	for _, o := range []string{outcomeOpened, outcomeFailed, outcomeBroken} {
		m.requests.WithLabelValues(o)
	}
	return m
}
