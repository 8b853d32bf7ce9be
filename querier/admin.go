package querier

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/util/httputil"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// Bounds of one deletion. All of a tenant's are in each version of its manifest, and each query looks at them.
const (
	maxSelectors     = 100
	maxSelectorBytes = 16 << 10
)

// deletionPath is what the path of one deletion begins with.
const deletionPath = "admin/tsdb/deletions/"

// adminAnswer carries out a request of a tenant; nil data are answered by 204.
type adminAnswer func(r *http.Request, tenantID string) (data any, err error)

// adminAnswers are what the administration API answers, by the name of the route and the method. Prometheus' own handler is
// for one TSDB, which it asks without a tenant.
func (q *Querier) adminAnswers() map[string]map[string]adminAnswer {
	both := func(a adminAnswer) map[string]adminAnswer {
		return map[string]adminAnswer{http.MethodPost: a, http.MethodPut: a}
	}
	return map[string]map[string]adminAnswer{
		"delete_series":    both(q.deleteSeries),
		"clean_tombstones": both(q.cleanTombstones),
		"deletions":        {http.MethodGet: q.listDeletions},
		"deletion":         {http.MethodDelete: q.cancelDeletion, http.MethodPost: q.cancelDeletion},
	}
}

// administer answers as Prometheus does, also when it does not.
func (q *Querier) administer(w http.ResponseWriter, r *http.Request, methods map[string]adminAnswer) {
	httputil.SetCORS(w, q.anyOrigin, r)
	answer := methods[r.Method]
	switch {
	case answer == nil:
		allowed := make([]string, 0, len(methods))
		for method := range methods {
			allowed = append(allowed, method)
		}
		slices.Sort(allowed)
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	case !q.cfg.EnableAdminAPI:
		fail(w, http.StatusInternalServerError, "unavailable", "admin APIs disabled") // status and all as Prometheus
		return
	}
	id, err := tenant.FromContext(r.Context())
	var data any
	if err == nil {
		data, err = answer(r, id)
	}
	switch {
	case err != nil:
		q.refuse(w, err)
	case data == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		q.sendData(w, data)
	}
}

// deleteSeries hides the samples of the series that one of the match[] selects, from start to end, both inclusive, and has
// the compactor take them out of the blocks.
func (q *Querier) deleteSeries(r *http.Request, tenantID string) (any, error) {
	now := q.now().UnixMilli()
	d, err := q.deletionOf(r, now)
	if err != nil || d.MinTime > d.MaxTime {
		return nil, err // what is yet to come is not deleted
	}
	m, err := q.wholeManifest(r, tenantID)
	if err != nil {
		return nil, err
	}
	if most := q.limits.MaxDeletions(tenantID); most > 0 && len(m.Deletions) >= most {
		return nil, errkind.New(errkind.Unprocessable, "tenant %s has %d deletions that are not done or younger than %s; the "+
			"limit max_deletions is %d", tenantID, len(m.Deletions), manifest.RememberDeletions, most)
	}
	recorded, err := q.versions.source.Delete(r.Context(), tenantID, d)
	if err != nil {
		return nil, err
	}
	if m := q.versions.source.Known(tenantID); m != nil {
		q.versions.notes.keep(tenantID, m) // before it is acknowledged
	}
	q.metrics.deletions.Inc()
	q.log.Info("series are deleted", "tenant", tenantID, "deletion", recorded.ID, "selectors", recorded.Selectors,
		"min_time", recorded.MinTime, "max_time", recorded.MaxTime)
	return nil, nil
}

// deletionOf reads a request, with Prometheus' words for what is wrong with it.
func (q *Querier) deletionOf(r *http.Request, now int64) (manifest.Deletion, error) {
	var none manifest.Deletion
	selectors := r.Form["match[]"]
	if len(selectors) == 0 {
		return none, errkind.New(errkind.Invalid, "no match[] parameter provided")
	}
	start, err := timeOf(r, "start", v1.MinTime)
	if err != nil {
		return none, err
	}
	end, err := timeOf(r, "end", v1.MaxTime)
	if err != nil {
		return none, err
	}
	size := 0
	for _, s := range selectors {
		if _, err := q.parser.ParseMetricSelector(s); err != nil {
			return none, invalidParameter("match[]", err)
		}
		size += len(s)
	}
	if len(selectors) > maxSelectors || size > maxSelectorBytes {
		return none, errkind.New(errkind.Invalid, "%d match[] parameters of %d bytes; a deletion may have %d of %d bytes: "+
			"divide it", len(selectors), size, maxSelectors, maxSelectorBytes)
	}
	return manifest.Deletion{Selectors: selectors, MinTime: start, MaxTime: min(end, now), CreatedAt: now}, nil
}

// newestManifest returns the newest manifest of a tenant. One that is to be deleted is refused as its writes and queries are: a
// deletion that is recorded meanwhile would be in force when the tenant is brought back.
func (q *Querier) newestManifest(r *http.Request, tenantID string) (*manifest.Manifest, error) {
	m, err := q.versions.source.Refresh(r.Context(), tenantID)
	if err == nil {
		err = q.refuseDeleted(tenantID, m)
	}
	return m, err
}

// wholeManifest is newestManifest, and not one that lacks blocks: a deletion makes the first version for who has none.
func (q *Querier) wholeManifest(r *http.Request, tenantID string) (*manifest.Manifest, error) {
	m, err := q.newestManifest(r, tenantID)
	if err == nil && m.Version == 0 {
		err = q.versions.refuseUnlisted(r.Context(), tenantID)
	}
	return m, err
}

// cleanTombstones has the compactor work all deletions into the blocks without the usual delay. It does not wait for that.
func (q *Querier) cleanTombstones(r *http.Request, tenantID string) (any, error) {
	if _, err := q.newestManifest(r, tenantID); err != nil {
		return nil, err
	}
	return nil, q.versions.source.HastenDeletions(r.Context(), tenantID)
}

// listedDeletion is a deletion as the API shows it. Times are in milliseconds since the Unix epoch.
type listedDeletion struct {
	ID        uint64   `json:"id"`
	Match     []string `json:"match"`
	MinTime   int64    `json:"min_time"`
	MaxTime   int64    `json:"max_time"`
	CreatedAt int64    `json:"created_at"`
	Urgent    bool     `json:"urgent"`
	// PendingBlocks are those that may still hold what was deleted.
	PendingBlocks int `json:"pending_blocks"`
}

func (q *Querier) listDeletions(r *http.Request, tenantID string) (any, error) {
	m, err := q.newestManifest(r, tenantID)
	if err != nil {
		return nil, err
	}
	out := make([]listedDeletion, len(m.Deletions))
	for i, d := range m.Deletions {
		out[i] = listedDeletion{
			ID: d.ID, Match: d.Selectors, MinTime: d.MinTime, MaxTime: d.MaxTime, CreatedAt: d.CreatedAt, Urgent: d.Urgent,
			PendingBlocks: len(m.Pending(d.ID)),
		}
	}
	return out, nil
}

// cancelDeletion shows again what a deletion hides and is still there.
func (q *Querier) cancelDeletion(r *http.Request, tenantID string) (any, error) {
	text := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return nil, errkind.New(errkind.Invalid, "%q is not the number of a deletion", text)
	}
	m, err := q.newestManifest(r, tenantID)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(m.Deletions, func(d manifest.Deletion) bool { return d.ID == id }) {
		return nil, errkind.New(errkind.NotFound, "tenant %s has no deletion %d", tenantID, id)
	}
	if err := q.versions.source.CancelDeletion(r.Context(), tenantID, id); err != nil {
		return nil, err
	}
	q.log.Info("deletion of series is cancelled", "tenant", tenantID, "deletion", id)
	return nil, nil
}

// timeOf reads a time as Prometheus does, in milliseconds since the Unix epoch.
func timeOf(r *http.Request, name string, absent time.Time) (int64, error) {
	text := r.FormValue(name)
	if text == "" {
		return absent.UnixMilli(), nil
	}
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		ms := math.Round(seconds * 1000)
		switch {
		case ms <= float64(v1.MinTime.UnixMilli()):
			return v1.MinTime.UnixMilli(), nil
		case ms >= float64(v1.MaxTime.UnixMilli()):
			return v1.MaxTime.UnixMilli(), nil
		case !math.IsNaN(ms):
			return int64(ms), nil
		}
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t.UnixMilli(), nil
	}
	for _, end := range []time.Time{v1.MinTime, v1.MaxTime} { // whose years the standard library writes and does not read
		if text == end.Format(time.RFC3339Nano) {
			return end.UnixMilli(), nil
		}
	}
	return 0, invalidParameter(name, fmt.Errorf("invalid time value for '%s': cannot parse %q to a valid timestamp", name, text))
}

func invalidParameter(name string, err error) error {
	return errkind.New(errkind.Invalid, "invalid parameter %q: %w", name, err)
}
