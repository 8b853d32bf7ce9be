package ingester

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// stockCounters reads the counters of one open TSDB that say what stock does not return: how many samples a Commit kept,
// and whether it lost an out-of-order log record. Not safe for concurrent use: the tenant's append lock guards it.
type stockCounters struct {
	reg        *prometheus.Registry
	floats     prometheus.Metric
	histograms prometheus.Metric
	wblFailed  prometheus.Metric // nil until the out-of-order log exists
	lateExs    prometheus.Metric // exemplars that Commit found too old
	chunks     prometheus.Metric // in the head, a gauge
	buf        dto.Metric
}

const wblFailedName = "prometheus_tsdb_out_of_order_wbl_writes_failed_total"

// newStockCounters finds the counters in the registry that the TSDB was opened with. It fails when this version of the
// TSDB has none of that name: without them a silent loss would go unseen.
func newStockCounters(reg *prometheus.Registry) (*stockCounters, error) {
	const name = "prometheus_tsdb_head_samples_appended_total"
	c, err := registered(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: name, Help: "Total number of appended samples.",
	}, []string{"type"}))
	if err != nil {
		return nil, err
	}
	vec, ok := c.(*prometheus.CounterVec)
	if !ok {
		return nil, fmt.Errorf("metric %s is a %T", name, c)
	}
	s := &stockCounters{reg: reg, floats: vec.WithLabelValues("float"), histograms: vec.WithLabelValues("histogram")}
	if s.lateExs, err = registeredCounter(reg, "prometheus_tsdb_exemplar_out_of_order_exemplars_total",
		"Total number of out of order exemplar ingestion failed attempts."); err != nil {
		return nil, err
	}
	if s.chunks, err = registeredGauge(reg, "prometheus_tsdb_head_chunks",
		"Total number of chunks in the head block."); err != nil {
		return nil, err
	}
	return s, s.findWBL(false)
}

// findWBL looks for the counter of the out-of-order log, which exists once the tenant has an out-of-order window.
func (s *stockCounters) findWBL(must bool) error {
	if s.wblFailed != nil {
		return nil
	}
	c, err := registeredCounter(s.reg, wblFailedName, "Total number of write log writes that failed.")
	if errors.Is(err, errNoSuchMetric) && !must {
		return nil
	}
	s.wblFailed = c
	return err
}

// appended is how many samples Commits kept since the open.
func (s *stockCounters) appended() int64 { return s.read(s.floats) + s.read(s.histograms) }

// wblFailures is how many writes of the out-of-order log failed since the open.
func (s *stockCounters) wblFailures() int64 {
	if s.wblFailed == nil {
		return 0
	}
	return s.read(s.wblFailed)
}

// lateExemplars is how many exemplars Commits dropped since the open because newer ones of their series were there.
func (s *stockCounters) lateExemplars() int64 { return s.read(s.lateExs) }

// headChunks is how many chunks the head has. Unlike the others it is safe for concurrent use.
func (s *stockCounters) headChunks() int64 {
	var m dto.Metric
	if err := s.chunks.Write(&m); err != nil {
		return 0
	}
	return int64(m.GetGauge().GetValue())
}

func (s *stockCounters) read(m prometheus.Metric) int64 {
	s.buf.Reset()
	if err := m.Write(&s.buf); err != nil {
		return -1 // differs from every count: the caller looks closer
	}
	return int64(s.buf.GetCounter().GetValue())
}

var errNoSuchMetric = errors.New("no such metric")

// registered returns the collector that already stands in reg where probe would. A registry answers a second
// registration with the first collector, which spares a Gather of the whole registry for each read.
func registered(reg *prometheus.Registry, probe prometheus.Collector) (prometheus.Collector, error) {
	err := reg.Register(probe)
	if are, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		return are.ExistingCollector, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find stock metric: %w", err)
	}
	reg.Unregister(probe)
	return nil, errNoSuchMetric
}

// registeredCounter is registered for a counter without labels; help is stock's.
func registeredCounter(reg *prometheus.Registry, name, help string) (prometheus.Metric, error) {
	return onlyMetric(registered(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})))
}

// registeredGauge is the same for a gauge.
func registeredGauge(reg *prometheus.Registry, name, help string) (prometheus.Metric, error) {
	return onlyMetric(registered(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})))
}

func onlyMetric(c prometheus.Collector, err error) (prometheus.Metric, error) {
	if err != nil {
		return nil, err
	}
	ch := make(chan prometheus.Metric, 1)
	c.Collect(ch)
	return <-ch, nil
}
