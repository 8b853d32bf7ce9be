package ingester

import (
	"context"
	"math"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/duramendb/duramen/duramenpb"
)

// HeadStats says what the tenant's series in memory consist of, with the limit largest of each list. A tenant without
// data here has zeros. The numbers are up to half a minute old: they take a pass over all label values, which the TSDB
// does not repeat more often for the same limit.
//
// Kinds of errors: Unavailable while starting, stopping or reopening.
func (i *Ingester) HeadStats(ctx context.Context, tenantID string, limit int) (duramenpb.HeadStats, error) {
	l, err := i.find(ctx, tenantID)
	if err != nil || l == nil {
		return duramenpb.HeadStats{}, err
	}
	defer l.release()
	s := l.db.Head().Stats(labels.MetricName, limit)
	out := duramenpb.HeadStats{
		Series: s.NumSeries, LabelPairs: s.IndexPostingStats.NumLabelPairs, Chunks: l.counters.headChunks(),
		SeriesByMetric: counts(s.IndexPostingStats.CardinalityMetricsStats),
		SeriesByPair:   counts(s.IndexPostingStats.LabelValuePairsStats),
		ValuesByLabel:  counts(s.IndexPostingStats.CardinalityLabelStats),
		BytesByLabel:   counts(s.IndexPostingStats.LabelValueStats),
	}
	if s.MinTime <= s.MaxTime && s.MinTime != math.MaxInt64 { // else nothing was appended yet
		out.MinTime, out.MaxTime = s.MinTime, s.MaxTime
	}
	return out, nil
}

// counts copies the names, which are parts of labels that may be dropped from memory.
func counts(stats []index.Stat) []duramenpb.Count {
	out := make([]duramenpb.Count, len(stats))
	for n, s := range stats {
		out[n] = duramenpb.Count{Name: strings.Clone(s.Name), Value: s.Count}
	}
	return out
}
