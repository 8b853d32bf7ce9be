package tenant

import (
	"net/http"

	"github.com/duramendb/duramen/internal/errkind"
)

// Middleware puts the tenant named by X-Scope-OrgID into the request's context before next sees it. Without the header
// the tenant is Anonymous, unless required is set: then the answer is 401. A header given twice is 400.
func Middleware(required bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		names := r.Header.Values(HeaderName)
		if len(names) > 1 {
			// A proxy that adds the header beside a sender's own would let the sender choose.
			http.Error(w, HeaderName+" is given more than once; send it once", http.StatusBadRequest)
			return
		}
		id := r.Header.Get(HeaderName)
		if id == "" && !required {
			id = Anonymous
		}
		if err := ValidateID(id); err != nil {
			http.Error(w, err.Error(), errkind.Of(err).HTTPStatus())
			return
		}
		next.ServeHTTP(w, r.WithContext(WithID(r.Context(), id)))
	})
}
