package ingester

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/duramendb/duramen/duramenpb"
)

type metrics struct {
	samples          *prometheus.CounterVec // type
	refused          *prometheus.CounterVec // reason
	staleRefs        prometheus.Counter
	lookups          *prometheus.CounterVec // path
	silentDrops      prometheus.Counter
	exemplars        prometheus.Counter
	exemplarsDropped *prometheus.CounterVec // reason
	startTimes       prometheus.Counter
	metadataFull     prometheus.Counter
	pushSeconds      prometheus.Histogram
	openTenants      prometheus.Gauge
	opens            *prometheus.CounterVec // outcome
	openSeconds      prometheus.Histogram
	reopens          prometheus.Counter
	cuts             *prometheus.CounterVec // outcome
	cutSeconds       prometheus.Histogram
	hidden           prometheus.Counter
	damagedTenants   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "duramen_ingester_" + name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "duramen_ingester_" + name, Help: help}, []string{label})
	}
	m := &metrics{
		samples: vec("samples_total", "Samples stored or held already, by type. Its rate is the load; a fall means that "+
			"senders stopped or are refused.", "type"),
		refused: vec("samples_refused_total", "Samples refused for good, by reason. A rise means that senders lose data: the "+
			"reason says which limit or clock to look at.", "reason"),
		staleRefs: counter("stale_references_total", "Series sent by a reference that is not known any more and asked for "+
			"again with labels. A lasting rise means that references are not learned."),
		lookups: vec("sample_lookups_total", "Samples that came late or twice and were looked up, by how. A rise costs CPU: "+
			"senders retry or write out of order.", "path"),
		silentDrops: counter("silent_drops_total", "Samples that the TSDB took and then did not keep, found by counting and "+
			"stored after all or refused by name. A rise is a fault to report."),
		exemplars: counter("exemplars_total", "Exemplars stored, or held already. A rise above the ring's size within a "+
			"query's range means that older ones are forgotten."),
		exemplarsDropped: vec("exemplars_dropped_total", "Exemplars dropped, by reason; writes do not fail for them. A rise "+
			"means that queries miss exemplars: of series without samples, older than the tenant's newer ones allow, with too "+
			"long labels, or because the tenant's limit keeps none.", "reason"),
		startTimes: counter("start_timestamps_dropped_total", "Samples whose start timestamp was dropped because "+
			"-ingester.start-timestamps is off. A rise means that senders send what is not kept."),
		metadataFull: counter("metadata_dropped_total", "Metadata of metric families dropped because the tenant's limit is "+
			"reached. A rise means that the metadata API misses families."),
		pushSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "duramen_ingester_push_seconds",
			Help:    "Time to append one batch, log sync included. A rise means that the disk or a tenant's lock is slow.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
		}),
		openTenants: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_ingester_open_tenants", Help: "TSDBs in memory. A rise takes memory.",
		}),
		opens: vec("opens_total", "TSDBs opened, by outcome. A rise of \"failed\" means that a tenant can neither be "+
			"written nor read: see the log.", "outcome"),
		openSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "duramen_ingester_open_seconds",
			Help:    "Time to open a TSDB and replay its logs. A rise means longer restarts.",
			Buckets: prometheus.ExponentialBuckets(0.005, 4, 9),
		}),
		reopens: counter("reopens_total", "TSDBs closed and opened again because a write failed. Any rise means that a disk "+
			"is failing or full."),
		cuts: vec("cuts_total", "Cuts of blocks from the head, by outcome. A rise of \"failed\" means that memory and "+
			"logs will grow.", "outcome"),
		cutSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "duramen_ingester_cut_seconds",
			Help:    "Time of one cut. A rise means slow disks or long queries, which a cut waits for.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 9),
		}),
		hidden: counter("truncation_races_total", "Truncations that hid samples appended meanwhile and were undone by a "+
			"replay. A rise is a fault to report."),
		damagedTenants: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_ingester_damaged_tenants",
			Help: "Tenants whose write log or blocks were found damaged and set aside. Anything above 0 needs an operator.",
		}),
	}
	for _, r := range []duramenpb.Reason{
		duramenpb.ReasonTooOld, duramenpb.ReasonOutOfOrder, duramenpb.ReasonDuplicate, duramenpb.ReasonSeriesLimit,
		duramenpb.ReasonInvalidHistogram, duramenpb.ReasonDuplicateLabel,
	} {
		m.refused.WithLabelValues(string(r))
	}
	for _, reason := range []string{dropUnknownSeries, dropOutOfOrder, dropInvalid, dropNotKept} {
		m.exemplarsDropped.WithLabelValues(reason)
	}
	return m
}
