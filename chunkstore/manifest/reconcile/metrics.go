package reconcile

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Outcomes of a tenant's pass, as in the label of passes.
const (
	passDone   = "done"
	passFailed = "failed"
)

// Why objects are deleted, as in the label of deleted.
const (
	deletedRemoved = "removed"
	deletedOrphan  = "orphan"
)

type metrics struct {
	passes       *prometheus.CounterVec
	passSeconds  prometheus.Histogram
	adopted      *prometheus.CounterVec
	marked       prometheus.Counter
	deleted      *prometheus.CounterVec
	left         *prometheus.GaugeVec
	damaged      prometheus.Gauge
	foreign      prometheus.Gauge
	failing      prometheus.Gauge
	doomed       prometheus.Gauge
	purged       prometheus.Counter
	lastPass     prometheus.Gauge
	peerFiles    prometheus.Counter
	peerFailures prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		passes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_reconcile_tenant_passes_total",
			Help: "Comparisons of a tenant's folder with its manifest, by outcome. A rise of failed means that the bucket fails " +
				"or that a manifest cannot be read: the log names the tenant.",
		}, []string{"outcome"}),
		passSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "duramen_reconcile_tenant_pass_duration_seconds",
			Help:    "Time of one tenant's comparison; a rise means more objects or a slower bucket.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 9), // 10 ms to 11 min
		}),
		adopted: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_reconcile_adopted_blocks_total",
			Help: "Blocks that were found in the bucket and listed, by whose they are. A rise of own means that announcements " +
				"are lost, of peer that another system writes to the bucket.",
		}, []string{"writer"}),
		marked: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_reconcile_peer_marks_total",
			Help: "Blocks that left a manifest, or are not compacted any more, because a peer marked them. A rise means that a " +
				"compactor of Cortex, Mimir or Thanos works on the bucket.",
		}),
		deleted: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_reconcile_deleted_blocks_total",
			Help: "Blocks whose objects were deleted: removed from the manifest before, or orphans that no manifest has named. " +
				"A rise of orphan means uploads or compactions that break off.",
		}, []string{"what"}),
		left: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "duramen_reconcile_left_blocks",
			Help: "Blocks in the bucket that no manifest lists and that are left alone, by reason. A lasting rise of " +
				"uncovered_output or doubtful means samples that queries do not see: the log names the blocks.",
		}, []string{"reason"}),
		damaged: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_reconcile_damaged_blocks",
			Help: "Listed blocks of which objects are missing. Anything above 0 means that queries over them fail.",
		}),
		foreign: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_reconcile_foreign_deletions",
			Help: "Listed blocks of ours that somebody else has marked for deletion or deleted, and whose samples are in no other " +
				"block. Anything above 0 means that the compactor or the retention of a peer works on the bucket: stop it.",
		}),
		failing: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_reconcile_failing_tenants",
			Help: "Tenants whose last comparison failed; a lasting value above 0 means that their blocks drift from the manifest.",
		}),
		doomed: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_reconcile_doomed_tenants",
			Help: "Tenants that are to be deleted and are not yet. A rise means that somebody has asked for it, or that a peer's " +
				"mark was found; until the time of grace is over it can be taken back.",
		}),
		purged: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_reconcile_deleted_tenants_total",
			Help: "Tenants of which all objects were deleted, on request. A rise means that this cannot be taken back.",
		}),
		lastPass: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_reconcile_last_pass_timestamp_seconds",
			Help: "When all tenants had been compared last, in Unix time; falling behind the clock means that it does not happen.",
		}),
		peerFiles: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_reconcile_bucket_indexes_written_total",
			Help: "Indexes of blocks written for Cortex and Mimir; no rise for an hour means that their queries find them too old.",
		}),
		peerFailures: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_reconcile_peer_file_failures_total",
			Help: "Files for peers that could not be written and are tried again; a steady rise means that readers of Cortex, " +
				"Mimir or Thanos see an old state. Nothing else suffers.",
		}),
	}
	for _, outcome := range []string{passDone, passFailed} {
		m.passes.WithLabelValues(outcome)
	}
	for _, writer := range []string{"own", "peer"} {
		m.adopted.WithLabelValues(writer)
	}
	for _, what := range []string{deletedRemoved, deletedOrphan} {
		m.deleted.WithLabelValues(what)
	}
	for _, reason := range leftReasons {
		m.left.WithLabelValues(reason)
	}
	return m
}
