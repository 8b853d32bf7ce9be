package identity

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct{ refused prometheus.Gauge }

func newMetrics(reg prometheus.Registerer) metrics {
	return metrics{refused: promauto.With(reg).NewGauge(prometheus.GaugeOpts{
		Name: "duramen_bucket_refused",
		Help: "Whether the bucket is not the one that was used before: a volume that is not mounted, a bucket that was emptied, a " +
			"wrong name. 1 means that queries of older samples are 503 and nothing is shipped; /healthz says why.",
	})}
}
