package reader

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	indexRequests *prometheus.CounterVec
	indexBytes    prometheus.Gauge
	indexSeconds  prometheus.Histogram
	fetches       *prometheus.CounterVec
	fetchedBytes  *prometheus.CounterVec
	chunkBytes    prometheus.Counter
	refetches     *prometheus.CounterVec
	failures      *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		indexRequests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_reader_index_requests_total",
			Help: "Requests for a block's index. Many misses against hits mean that the index cache is too small.",
		}, []string{"result"}),
		indexBytes: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_reader_index_cache_bytes",
			Help: "Bytes of indexes in memory. Above the setting means that running queries use more than the cache may hold.",
		}),
		indexSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "duramen_reader_index_load_seconds",
			Help:    "Time to fetch and check one index. A rise means a slow bucket or larger blocks.",
			Buckets: prometheus.ExponentialBuckets(0.005, 4, 7),
		}),
		fetches: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_reader_fetches_total",
			Help: "Requests to the bucket. A rise at steady queries means colder caches or scattered chunks.",
		}, []string{"object"}),
		fetchedBytes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_reader_fetched_bytes_total",
			Help: "Bytes read from the bucket. A rise without more chunk bytes means read-ahead that nobody uses.",
		}, []string{"object"}),
		chunkBytes: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_reader_chunk_bytes_total",
			Help: "Bytes of chunks handed to queries. A rise means that queries read more data.",
		}),
		refetches: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_reader_refetches_total",
			Help: "Reads repeated because what came did not pass its checks. A rise means that data is damaged on the way " +
				"from the bucket or, with failures of kind corrupt, in it.",
		}, []string{"object"}),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_reader_failures_total",
			Help: "Objects that could not be read, by kind. Any corrupt one means a missing or damaged block.",
		}, []string{"kind"}),
	}
}
