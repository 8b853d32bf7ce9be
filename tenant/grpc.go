package tenant

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/duramendb/duramen/internal/errkind"
)

// StreamInterceptor puts the tenant that the call's metadata names into its context. A call between processes of ours
// always names one: without it, or with more than one, it is refused.
func StreamInterceptor(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	id, err := fromMetadata(stream.Context())
	if err != nil {
		return status.Error(errkind.Of(err).GRPCCode(), err.Error())
	}
	return next(srv, &tenantStream{stream, WithID(stream.Context(), id)})
}

func fromMetadata(ctx context.Context) (string, error) {
	names := metadata.ValueFromIncomingContext(ctx, MetadataKey)
	if len(names) > 1 {
		return "", errkind.New(errkind.Invalid, "%s is given more than once; send it once", MetadataKey)
	}
	var id string
	if len(names) == 1 {
		id = names[0]
	}
	return id, ValidateID(id)
}

// tenantStream is a stream with another context.
type tenantStream struct {
	grpc.ServerStream

	ctx context.Context //nolint:containedctx // gRPC has no other place for it
}

// Context implements grpc.ServerStream.
func (s *tenantStream) Context() context.Context { return s.ctx }
