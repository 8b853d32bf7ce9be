package sidecar

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/duramendb/duramen/internal/errkind"
)

// Values of the label outcome of ensured.
const (
	found   = "found"
	built   = "built"
	corrupt = "corrupt"
	failed  = "failed"
)

type metrics struct {
	ensured    *prometheus.CounterVec
	seconds    prometheus.Histogram
	indexBytes prometheus.Counter
	notSent    prometheus.Counter
	notNoted   prometheus.Counter
	kept       prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		ensured: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_sidecar_ensured_total",
			Help: "Blocks that were queried and had no known sidecar: found in the bucket, built from the block's index, " +
				"corrupt when the index is damaged, failed. A rise of built is normal after blocks of other programs came in; of " +
				"corrupt it means that queries of a tenant fail, of failed trouble with the bucket or the disk.",
		}, []string{"outcome"}),
		seconds: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "duramen_sidecar_build_duration_seconds",
			Help:    "Time to build a sidecar, reading the index and uploading included; queries wait for it.",
			Buckets: prometheus.ExponentialBuckets(0.05, 4, 8), // 50 ms to 14 min
		}),
		indexBytes: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_sidecar_index_read_bytes_total",
			Help: "Bytes of blocks' indexes that were read to build sidecars. A lasting rise means that blocks come without.",
		}),
		notSent: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_sidecar_upload_failures_total",
			Help: "Sidecars that were built and that the bucket did not take. A rise means a bucket that refuses writes; " +
				"queries work as long as the local disk has room.",
		}),
		notNoted: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_sidecar_annotate_failures_total",
			Help: "Sizes of sidecars that did not get into a manifest. A rise costs queries a few requests a block.",
		}),
		kept: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_sidecar_kept_bytes",
			Help: "Sidecars on the local disk that the bucket did not take. Nothing else than a rise to the bound of 2 GiB is " +
				"harmful: from there on blocks without a sidecar cannot be queried.",
		}),
	}
	for _, o := range []string{found, built, corrupt, failed} {
		m.ensured.WithLabelValues(o)
	}
	return m
}

func outcome(err error) string {
	if errkind.Of(err) == errkind.Corrupt {
		return corrupt
	}
	return failed
}
