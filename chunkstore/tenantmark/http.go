package tenantmark

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// DeleteHandler answers POST /compactor/delete_tenant: the tenant of the request is to be deleted. As at the peers it is 200
// when that is noted; the body is a Status.
func (r *Requests) DeleteHandler() http.Handler { return handler(http.MethodPost, r.Delete) }

// UndeleteHandler answers POST /compactor/undelete_tenant: 200 when the request was taken back, 410 when it is too late.
func (r *Requests) UndeleteHandler() http.Handler { return handler(http.MethodPost, r.Undelete) }

// StatusHandler answers GET /compactor/delete_tenant_status with a Status.
func (r *Requests) StatusHandler() http.Handler { return handler(http.MethodGet, r.Status) }

func handler(method string, do func(context.Context, string) (Status, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method {
			w.Header().Set("Allow", method)
			http.Error(w, "use "+method, http.StatusMethodNotAllowed)
			return
		}
		tenantID, err := tenant.FromContext(r.Context())
		var s Status
		if err == nil {
			s, err = do(r.Context(), tenantID)
		}
		if err != nil {
			http.Error(w, err.Error(), errkind.Of(err).HTTPStatus())
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s) // the client is gone when this fails
	})
}
