package manifest

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Outcomes of a swap, as in the label of swaps.
const (
	swapWon       = "won"
	swapRecovered = "recovered"
	swapLost      = "lost"
	swapFailed    = "failed"
	swapForked    = "forked"
)

// Why blocks leave a manifest, as in the label of removed.
const (
	removedReplaced = "replaced"
	removedDropped  = "dropped"
)

type metrics struct {
	swaps        *prometheus.CounterVec
	swapSeconds  prometheus.Histogram
	added        prometheus.Counter
	removed      *prometheus.CounterVec
	corrupt      prometheus.Counter
	loads        prometheus.Counter
	pruneFailed  prometheus.Counter
	loaded       prometheus.Gauge
	loadedBlocks prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		swaps: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_manifest_swaps_total",
			Help: "Attempts to create the next version of a manifest: won, lost to a rival, recovered after an answer " +
				"that looked like a failure, failed, forked and undone after a long pause. A rise of lost means several " +
				"owners of one tenant, of failed trouble with the bucket, of forked clocks or processes that stand still.",
		}, []string{"outcome"}),
		swapSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "duramen_manifest_swap_duration_seconds",
			Help:    "Time of one attempt to create a version; a rise delays when shipped blocks become visible.",
			Buckets: prometheus.ExponentialBuckets(0.002, 4, 8), // 2 ms to 33 s
		}),
		added: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_manifest_blocks_added_total",
			Help: "Blocks added to manifests; no rise for hours under load means that nothing is shipped.",
		}),
		removed: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_manifest_blocks_removed_total",
			Help: "Blocks that left manifests: replaced by others that hold their samples, or dropped together with them. A " +
				"rise of dropped is a rise in samples that queries no longer see, by retention, by deletion or by a peer's mark.",
		}, []string{"reason"}),
		corrupt: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_manifest_corrupt_total",
			Help: "Reads of a manifest that failed because it is damaged; any rise means that a tenant cannot be " +
				"queried below its recent data.",
		}),
		loads: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_manifest_loads_total",
			Help: "Manifests looked up by listing the bucket; a steady rise means that more tenants are in use than " +
				"the memory for manifests holds.",
		}),
		pruneFailed: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_manifest_prune_failures_total",
			Help: "Deletions of old versions that failed; they are tried again with the next version. A rise costs space only.",
		}),
		loaded: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_manifest_loaded_tenants",
			Help: "Tenants whose manifest is in memory. A rise is a rise in tenants queried or shipped lately.",
		}),
		loadedBlocks: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_manifest_loaded_blocks",
			Help: "Blocks in the manifests in memory; a rise is a rise in memory.",
		}),
	}
	for _, outcome := range []string{swapWon, swapRecovered, swapLost, swapFailed, swapForked} {
		m.swaps.WithLabelValues(outcome)
	}
	for _, reason := range []string{removedReplaced, removedDropped} {
		m.removed.WithLabelValues(reason)
	}
	return m
}
