package compactor

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/duramendb/duramen/compactor/merge"
	"github.com/duramendb/duramen/compactor/plan"
)

// Outcomes of a salvage, as in the label of a metric.
const (
	salvageDone       = "done"
	salvageFailed     = "failed"
	salvageImpossible = "impossible"
)

type metrics struct {
	looks        prometheus.Counter
	lookFailures prometheus.Counter
	jobs         *prometheus.CounterVec
	jobSeconds   *prometheus.HistogramVec
	samples      *prometheus.CounterVec
	conflicts    prometheus.Counter
	chunks       *prometheus.CounterVec
	bytes        *prometheus.CounterVec
	peakDisk     atomic.Int64
	salvages     *prometheus.CounterVec
	expired      prometheus.Counter
	expiredBytes prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, c *Compactor) *metrics {
	f := promauto.With(reg)
	c.registerGauges(reg)
	m := &metrics{
		looks: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_compactor_looks_total",
			Help: "Times that a tenant's blocks were looked through for work. When it stands still nothing is compacted and " +
				"nothing expires.",
		}),
		lookFailures: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_compactor_look_failures_total",
			Help: "Looks at a tenant's blocks that failed; a rise means that the bucket fails or a manifest cannot be read.",
		}),
		jobs: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_compactor_jobs_total",
			Help: "Jobs that ended, by kind and outcome. stale, moved and stopped are harmless. A rise of conflict means that two " +
				"processes work on one tenant, of unavailable that the bucket or the disk fails, of damaged and salvaged that " +
				"blocks are damaged, of too_large that a tenant has too many series, of fault a fault to report.",
		}, []string{"kind", "outcome"}),
		jobSeconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "duramen_compactor_job_duration_seconds",
			Help:    "Time of one job, however it ended; a rise means larger blocks or a slower bucket.",
			Buckets: prometheus.ExponentialBuckets(0.1, 4, 9), // 100 ms to 109 min
		}, []string{"kind"}),
		samples: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_compactor_samples_total",
			Help: "Samples of blocks that were merged: read as input, written as output, left out as duplicate of another " +
				"replica's or as deleted. A rise of output alone means that replicas are not merged.",
		}, []string{"kind"}),
		conflicts: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_compactor_conflicting_samples_total",
			Help: "Times at which blocks had different values of one series, of which one was kept. A rise means that several " +
				"senders write the same series, such as a pair of Prometheus servers without deduplication.",
		}),
		chunks: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_compactor_chunks_total",
			Help: "Chunks of blocks that were merged: copied as they are, encoded anew, or dropped as equal to one that was " +
				"copied. A rise of encoded means that replicas differ, and costs CPU.",
		}, []string{"how"}),
		bytes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_compactor_bytes_total",
			Help: "Bytes that merges moved: read of inputs, written, and verified by reading back. A rise means more data, or " +
				"late data that is merged again and again.",
		}, []string{"what"}),
		salvages: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_compactor_salvages_total",
			Help: "Damaged blocks that were dealt with, by outcome. Any rise means that the bucket has damaged objects: the log " +
				"and the report beside the block say what was lost.",
		}, []string{"outcome"}),
		expired: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_compactor_expired_blocks_total",
			Help: "Blocks that left a manifest because all of their samples were older than the tenant's retention; a jump means " +
				"that a retention was shortened.",
		}),
		expiredBytes: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_compactor_expired_bytes_total",
			Help: "Size of the blocks that left a manifest for their age; a jump means that a retention was shortened.",
		}),
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "duramen_compactor_scratch_peak_bytes",
		Help: "The most that a job since the start had on the local disk, about twice the index of its output. A rise means " +
			"larger tenants; the volume needs that much room for each of compactor.concurrency, and for two at least.",
	}, func() float64 { return float64(m.peakDisk.Load()) })
	m.fill()
	return m
}

// fill makes all series, so that a first failure is an increase.
func (m *metrics) fill() {
	for _, kind := range append(plan.Kinds(), kindRepair) {
		m.jobSeconds.WithLabelValues(string(kind))
		for _, o := range outcomes() {
			m.jobs.WithLabelValues(string(kind), string(o))
		}
	}
	for _, o := range []string{salvageDone, salvageFailed, salvageImpossible} {
		m.salvages.WithLabelValues(o)
	}
	m.count(&merge.Result{})
}

// count adds what a job did.
func (m *metrics) count(r *merge.Result) {
	m.samples.WithLabelValues("input").Add(float64(r.InputSamples))
	m.samples.WithLabelValues("output").Add(float64(r.OutputSamples))
	m.samples.WithLabelValues("duplicate").Add(float64(r.Duplicates))
	m.samples.WithLabelValues("deleted").Add(float64(r.Deleted))
	m.conflicts.Add(float64(r.Conflicts))
	m.chunks.WithLabelValues("copied").Add(float64(r.ChunksCopied))
	m.chunks.WithLabelValues("encoded").Add(float64(r.ChunksEncoded))
	m.chunks.WithLabelValues("dropped").Add(float64(r.ChunksDropped))
	m.bytes.WithLabelValues("read").Add(float64(r.BytesRead))
	m.bytes.WithLabelValues("written").Add(float64(r.BytesWritten))
	m.bytes.WithLabelValues("verified").Add(float64(r.BytesVerified))
	for most := m.peakDisk.Load(); r.PeakDisk > most && !m.peakDisk.CompareAndSwap(most, r.PeakDisk); {
		most = m.peakDisk.Load()
	}
}
