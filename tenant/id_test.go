package tenant

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/errkind"
)

func TestValidateID(t *testing.T) {
	for _, id := range []string{"a", "team-1", "A.b_c*d'(e)!", "anonymous", "...", strings.Repeat("x", MaxIDLength)} {
		require.NoError(t, ValidateID(id), "ID %q", id)
	}
	for _, id := range []string{".", "..", "a/b", "../x", "a|b", "a b", "a\x00", "ü", `a\b`, "__mimir_cluster", "user-index.json.gz", strings.Repeat("x", MaxIDLength+1)} {
		require.Equal(t, errkind.Invalid, errkind.Of(ValidateID(id)), "ID %q", id)
	}
	require.ErrorIs(t, ValidateID(""), ErrMissingID)
}

func TestMiddleware(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := FromContext(r.Context())
		require.NoError(t, err)
		_, _ = w.Write([]byte(id))
	})
	for _, tc := range []struct {
		name, header string
		required     bool
		status       int
		body         string
	}{
		{"named", "team-1", true, http.StatusOK, "team-1"},
		{"default", "", false, http.StatusOK, Anonymous},
		{"demanded", "", true, http.StatusUnauthorized, HeaderName},
		{"a path", "../../etc", false, http.StatusBadRequest, "allowed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			if tc.header != "" {
				r.Header.Set(HeaderName, tc.header)
			}
			w := httptest.NewRecorder()
			Middleware(tc.required, echo).ServeHTTP(w, r)
			require.Equal(t, tc.status, w.Code)
			require.Contains(t, w.Body.String(), tc.body)
		})
	}
}

func TestMiddlewareRefusesTwoTenants(t *testing.T) {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Add(HeaderName, "a")
	r.Header.Add(HeaderName, "b")
	w := httptest.NewRecorder()
	Middleware(false, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		require.Fail(t, "the request went on")
	})).ServeHTTP(w, r)
	require.Equal(t, http.StatusBadRequest, w.Code)
	require.Contains(t, w.Body.String(), "given more than once")
}

func TestFromContextWithoutTenant(t *testing.T) {
	_, err := FromContext(t.Context())
	require.Equal(t, errkind.Unauthenticated, errkind.Of(err))
}
