package tenant

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

type callStream struct {
	grpc.ServerStream

	ctx context.Context
}

func (s callStream) Context() context.Context { return s.ctx }

func TestAStreamKnowsItsTenant(t *testing.T) {
	for name, c := range map[string]struct {
		values []string
		want   codes.Code
	}{
		"one":      {[]string{"team-a"}, codes.OK},
		"none":     {nil, codes.Unauthenticated},
		"empty":    {[]string{""}, codes.Unauthenticated},
		"two":      {[]string{"a", "b"}, codes.InvalidArgument},
		"a folder": {[]string{".."}, codes.InvalidArgument},
		"a path":   {[]string{"a/b"}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := metadata.NewIncomingContext(t.Context(), metadata.MD{MetadataKey: c.values})
			called := false
			err := StreamInterceptor(nil, callStream{ctx: ctx}, nil, func(_ any, s grpc.ServerStream) error {
				called = true
				id, err := FromContext(s.Context())
				require.NoError(t, err)
				require.Equal(t, "team-a", id)
				return nil
			})
			require.Equal(t, c.want, status.Code(err))
			require.Equal(t, c.want == codes.OK, called)
		})
	}
}
