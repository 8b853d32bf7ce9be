package reader

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are those of a Local.
type metrics struct {
	selects    *prometheus.CounterVec
	pages      prometheus.Counter
	series     prometheus.Counter
	chunkBytes prometheus.Counter
	windows    *prometheus.CounterVec
	refetches  prometheus.Counter
	ensured    prometheus.Counter
	refused    *prometheus.CounterVec
	failures   *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		selects: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_reader_block_selects_total",
			Help: "Blocks that a selector looked into, by how their chunks are read: whole, windows or none. A rise of windows " +
				"means that queries need more chunk buffers than they get.",
		}, []string{"chunks"}),
		pages: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_reader_pages_total",
			Help: "Pages of series that queries looked into. A rise at steady queries means less selective matchers.",
		}),
		series: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_reader_series_total",
			Help: "Series that matched, counted in each block. A rise means more or longer queries, or more churn.",
		}),
		chunkBytes: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_reader_chunk_bytes_total",
			Help: "Bytes of chunks handed to queries. A rise means that queries read more data.",
		}),
		windows: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_reader_windows_total",
			Help: "Reads of chunks of a block, by when: early, together with its pages; ahead, before anybody waited; late. " +
				"A rise of late ones means that queries jump or that windows are small.",
		}, []string{"when"}),
		refetches: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_reader_refetches_total",
			Help: "Reads repeated because what came did not pass its checks. A rise means that data is damaged on the way " +
				"from the bucket, on the disk of the cache or, with failures of kind corrupt, in the bucket.",
		}),
		ensured: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_reader_sidecars_wanted_total",
			Help: "Blocks that a query met without a readable sidecar. A lasting rise means that sidecars do not stay.",
		}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_reader_refused_total",
			Help: "Queries refused for a limit, by limit. A rise means that someone asks for too much, or is allowed too little.",
		}, []string{"limit"}),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_reader_failures_total",
			Help: "Objects that could not be read, by kind. Any corrupt one means a damaged block.",
		}, []string{"kind"}),
	}
}

// mergeMetrics are those of a Reader.
type mergeMetrics struct{ undecoded prometheus.Counter }

func newMergeMetrics(reg prometheus.Registerer) *mergeMetrics {
	return &mergeMetrics{undecoded: promauto.With(reg).NewCounter(prometheus.CounterOpts{
		Name: "duramen_reader_undecoded_chunks_total",
		Help: "Chunks whose checksum is right and whose content is not. Any rise means a block that was written wrongly.",
	})}
}
