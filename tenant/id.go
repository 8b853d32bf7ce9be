// Package tenant owns who a request is for: tenant IDs, their place in a context and in HTTP, and the limits of each
// tenant. It refuses IDs that could be mistaken for a path. Read package distributor next to see limits at work.
package tenant

import (
	"context"
	"errors"
	"strings"

	"github.com/duramendb/duramen/internal/errkind"
)

// HeaderName is the HTTP header that names the tenant, and MetadataKey the same in gRPC.
const (
	HeaderName  = "X-Scope-OrgID"
	MetadataKey = "x-scope-orgid"
)

// Anonymous is the tenant of requests without a header where a header is not demanded.
const Anonymous = "anonymous"

// MaxIDLength is the longest tenant ID in bytes, as in Cortex and Mimir.
const MaxIDLength = 150

// ErrMissingID means that a request names no tenant though it must. The caller adds the header.
var ErrMissingID = errors.New("no tenant: set the header " + HeaderName)

// ValidateID says whether id may name a tenant: 1 to 150 bytes of letters, digits and !-_.*'() as in Cortex, and
// neither "." nor "..", because an ID is the name of a folder in the bucket and on the ingester's disk. Nor may it be the
// name of something that Cortex and Mimir keep beside the folders of tenants.
func ValidateID(id string) error {
	switch {
	case id == "":
		return errkind.Wrap(errkind.Unauthenticated, ErrMissingID)
	case len(id) > MaxIDLength:
		return errkind.New(errkind.Invalid, "tenant ID has %d bytes; at most %d are allowed", len(id), MaxIDLength)
	case id == "." || id == "..":
		return errkind.New(errkind.Invalid, "tenant ID %q is a relative path; choose another name", id)
	case id == "__mimir_cluster" || id == "__markers__" || id == "user-index.json.gz":
		return errkind.New(errkind.Invalid, "tenant ID %q is reserved; choose another name", id)
	}
	for i := range len(id) {
		if !allowedInID(id[i]) {
			return errkind.New(errkind.Invalid, "tenant ID %q has %q at byte %d; letters, digits and !-_.*'() are allowed", id, id[i], i)
		}
	}
	return nil
}

func allowedInID(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!-_.*'()", c) >= 0
}

type contextKey struct{}

// WithID returns a context that carries the tenant ID, which must be valid.
func WithID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, contextKey{}, id)
}

// FromContext returns the tenant ID that the middleware put into ctx, or ErrMissingID of kind Unauthenticated.
func FromContext(ctx context.Context) (string, error) {
	if id, ok := ctx.Value(contextKey{}).(string); ok {
		return id, nil
	}
	return "", errkind.Wrap(errkind.Unauthenticated, ErrMissingID)
}
