package tenant

import (
	"net/http"

	"github.com/duramendb/duramen/internal/errkind"
)

// Middleware puts the tenant named by X-Scope-OrgID into the request's context before next sees it. Without the header
// the tenant is Anonymous, unless required is set: then the answer is 401.
func Middleware(required bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
