package fanout

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Why a zone does not count: label values of a metric.
const (
	missingAway = "away"
	missingLost = "lost_disk"
)

type metrics struct {
	openSeconds prometheus.Histogram
	hedges      prometheus.Counter
	failovers   prometheus.Counter
	missing     *prometheus.CounterVec
	noQuorum    prometheus.Counter
	broken      prometheus.Counter
	disputes    prometheus.Counter
	series      *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		openSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "duramen_fanout_open_seconds", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9), // 0.5 ms to 33 s
			Help: "Time until the ingesters of enough zones have planned with a query. A rise means slow or missing ingesters.",
		}),
		hedges: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_fanout_hedges_total",
			Help: "Zones that were asked because another was slow. A rise means ingesters that stall.",
		}),
		failovers: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_fanout_failovers_total",
			Help: "Zones that were asked because an ingester of another failed. A rise means ingesters that are away.",
		}),
		missing: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_fanout_missing_zones_total",
			Help: "Times that a zone did not count for a query: an ingester of it is away, or lost a disk with samples of the " +
				"query's range. A rise means that queries fail when another zone goes away, too.",
		}, []string{"reason"}),
		noQuorum: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_fanout_no_quorum_total",
			Help: "Times that the ingesters of too few zones answered. A query tries again for querier.quorum-wait and fails " +
				"then. A rise means that more is away than replication bears.",
		}),
		broken: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_fanout_broken_answers_total",
			Help: "Answers of ingesters that ended before they were whole. A rise means ingesters that go away or hang in the " +
				"middle of queries.",
		}),
		disputes: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_fanout_disputes_total",
			Help: "Queries that asked all zones because two of them hold different values for one time. A rise means that " +
				"senders send one series with different values, or that an ingester's disk is damaged.",
		}),
		series: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_fanout_series_total",
			Help: "Series read from ingesters, by zone. Zones that differ much mean that some are avoided.",
		}, []string{"zone"}),
	}
}
