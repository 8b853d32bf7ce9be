package querier

import (
	"context"
	"errors"

	"github.com/prometheus/prometheus/promql"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/duramendb/duramen/internal/errkind"
)

// overrideStatus returns the API's hook for status codes: errors that carry a kind of ours get that kind's status, all
// others keep Prometheus'. It counts each. The type of the API's error numbers has no name outside of it; any of them
// stands for it.
func overrideStatus[N ~int](m *metrics, _ N) func(N, error) (code int, override bool) {
	return func(num N, err error) (int, bool) {
		kind, ours := kindOf(int(num), cause(err))
		m.errors.WithLabelValues(kind.String()).Inc()
		if !ours {
			return 0, false
		}
		return kind.HTTPStatus(), true
	}
}

// kindOf returns the kind of an error that the API calls num, and whether the status is ours to decide.
func kindOf(num int, err error) (kind errkind.Kind, ours bool) {
	var (
		kinded   *errkind.Error
		timeout  promql.ErrQueryTimeout
		canceled promql.ErrQueryCanceled
	)
	switch {
	case errors.As(err, &kinded):
		return kinded.Kind, true
	case num == int(v1.ErrorBadData) && errors.As(err, &timeout):
		// The API blames the query when it did not get a slot in time. A sender must not take that for final.
		return errkind.Unavailable, true
	case num == int(v1.ErrorBadData) && errors.As(err, &canceled):
		return errkind.Canceled, true
	case errors.Is(err, context.DeadlineExceeded):
		// Prometheus sets no deadline for labels and series; ours ends an overload that may pass.
		return errkind.Unavailable, true
	default:
		return prometheusKinds[num], false
	}
}

// prometheusKinds names Prometheus' own errors in the metric. What is missing is Internal.
var prometheusKinds = map[int]errkind.Kind{
	int(v1.ErrorTimeout):       errkind.Unavailable,
	int(v1.ErrorCanceled):      errkind.Canceled,
	int(v1.ErrorExec):          errkind.Unprocessable,
	int(v1.ErrorBadData):       errkind.Invalid,
	int(v1.ErrorUnavailable):   errkind.Unavailable,
	int(v1.ErrorNotFound):      errkind.NotFound,
	int(v1.ErrorNotAcceptable): errkind.Invalid,
}

// cause looks into the engine's wrapper of storage errors, which does not unwrap by itself.
func cause(err error) error {
	var storage promql.ErrStorage
	if errors.As(err, &storage) {
		return storage.Err
	}
	return err
}
