package querier

import (
	"net/http"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/features"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

const (
	// defaultTSDBLimit and maxTSDBLimit are Prometheus': how long the lists of status/tsdb are, and may be.
	defaultTSDBLimit = 10
	maxTSDBLimit     = 10_000
)

// tsdbStatus says what the tenant's series in memory consist of.
func (q *Querier) tsdbStatus(r *http.Request, tenantID string) (any, error) {
	limit, err := number(r, "limit", defaultTSDBLimit)
	switch {
	case err != nil || limit < 1:
		return nil, errkind.New(errkind.Invalid, "limit must be a positive number")
	case limit > maxTSDBLimit:
		return nil, errkind.New(errkind.Invalid, "limit must not exceed %d", maxTSDBLimit)
	}
	s, err := q.extras.HeadStats(r.Context(), tenantID, limit)
	if err != nil {
		return nil, err
	}
	return v1.TSDBStatus{
		HeadStats: v1.HeadStats{
			NumSeries: s.Series, NumLabelPairs: s.LabelPairs, ChunkCount: s.Chunks, MinTime: s.MinTime, MaxTime: s.MaxTime,
		},
		SeriesCountByMetricName:     tsdbStats(s.SeriesByMetric),
		LabelValueCountByLabelName:  tsdbStats(s.ValuesByLabel),
		MemoryInBytesByLabelName:    tsdbStats(s.BytesByLabel),
		SeriesCountByLabelValuePair: tsdbStats(s.SeriesByPair),
	}, nil
}

func tsdbStats(counts []duramenpb.Count) []v1.TSDBStat {
	out := make([]v1.TSDBStat, len(counts))
	for n, c := range counts {
		out[n] = v1.TSDBStat{Name: c.Name, Value: c.Value}
	}
	return out
}

// runtimeInfo says when the process started and what its clock says. The rest is the operator's business and no
// tenant's: it is zero.
func (q *Querier) runtimeInfo() (v1.RuntimeInfo, error) {
	return v1.RuntimeInfo{
		StartTime: q.started, ServerTime: q.now().UTC(), ReloadConfigSuccess: true, LastConfigTime: q.started,
	}, nil
}

// newFeatures returns the registry behind the route features: what this API can do, by the names that Prometheus uses.
// The engine adds its own.
func newFeatures(p parser.Parser, startTimestamps, admin bool) features.Collector {
	r := features.NewRegistry()
	p.RegisterFeatures(r)
	for _, name := range []string{
		"label_values_match", "query_stats", "query_warnings", "time_range_labels", "time_range_series", "exclude_alerts",
	} {
		r.Enable(features.API, name)
	}
	r.Enable(features.TSDB, "exemplar_storage")
	r.Enable(features.TSDB, "native_histograms")
	r.Set(features.TSDB, "st_storage", startTimestamps)
	r.Set(features.TSDB, "histograms_st_encoding", startTimestamps)
	r.Set(features.API, "admin", admin)
	for _, name := range []string{"lifecycle", "otlp_write_receiver", "remote_write_receiver", "search"} {
		r.Disable(features.API, name)
	}
	return r
}
