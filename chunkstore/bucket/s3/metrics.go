package s3

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	requests  *prometheus.CounterVec
	retries   prometheus.Counter
	leftovers prometheus.Counter
	buffered  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_s3_requests_total",
			Help: "Requests sent to the S3 server, repeated ones included, by what they ask and by the class of the " +
				"answer's status, error when there was none; this is what is paid for, and a rise of 5xx or error means " +
				"that the server or the way to it is in trouble.",
		}, []string{"request", "status"}),
		retries: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_s3_retries_total",
			Help: "Requests repeated after a failure that may pass; a rise means throttling or a bad network.",
		}),
		leftovers: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_s3_unaborted_uploads_total",
			Help: "Failed multipart uploads whose parts could not be removed; a rise means paid storage that no listing " +
				"shows, which a lifecycle rule of the bucket should clean up.",
		}),
		buffered: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_s3_upload_buffer_bytes",
			Help: "Memory of parts on their way to the server; a rise to the limit means that uploads wait for one another.",
		}),
	}
}
