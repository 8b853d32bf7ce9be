package querier

import (
	"net/http"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/metadata"
)

// metricMetadata answers as Prometheus does over its targets. Where limits leave something out it is what comes later in
// the alphabet, and of one metric what was told earlier; Prometheus leaves out at random.
func (q *Querier) metricMetadata(r *http.Request, tenantID string) (any, error) {
	limit, err := number(r, "limit", -1)
	if err != nil {
		return nil, err
	}
	perMetric, err := number(r, "limit_per_metric", -1)
	if err != nil {
		return nil, err
	}
	told, err := q.extras.Metadata(r.Context(), tenantID, r.FormValue("metric"))
	if err != nil {
		return nil, err
	}
	found := map[string][]metadata.Metadata{}
	for _, m := range told {
		known, ok := found[m.Family]
		if !ok && limit >= 0 && len(found) >= limit || perMetric > 0 && len(known) >= perMetric {
			continue
		}
		found[m.Family] = append(known, metadata.Metadata{Type: model.MetricType(m.Type), Help: m.Help, Unit: m.Unit})
	}
	return found, nil
}
