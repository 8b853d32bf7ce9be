package errkind

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
)

// last is the highest kind.
const last = Misdirected

func TestEveryKindIsInTheTable(t *testing.T) {
	for k := Internal; k <= last; k++ {
		require.NotEmpty(t, k.String(), "kind %d", k)
		require.Equal(t, k, Named(k.String()))
		require.GreaterOrEqual(t, k.HTTPStatus(), 400, "kind %s", k)
		require.NotEqual(t, codes.OK, k.GRPCCode(), "kind %s", k)
	}
	require.Len(t, mapping, int(last)+1)
	require.Equal(t, Internal, Named("of a newer version"))
}

func TestRemoteWriteSendersActOnTheStatus(t *testing.T) {
	// Prometheus drops on 4xx, retries on 5xx and, when told to, on 429: what may be retried must not be another 4xx.
	for k := Internal; k <= last; k++ {
		status := k.HTTPStatus()
		if k.Retry() && status != http.StatusTooManyRequests && status != statusClientClosedRequest {
			require.GreaterOrEqual(t, status, 500, "kind %s may be retried", k)
		}
	}
}

func TestOf(t *testing.T) {
	require.Equal(t, Internal, Of(errors.New("x")))
	require.Equal(t, Canceled, Of(fmt.Errorf("push: %w", context.Canceled)))
	require.Equal(t, Unavailable, Of(fmt.Errorf("push: %w", context.DeadlineExceeded)))

	cause := errors.New("disk full")
	err := fmt.Errorf("push: %w", Wrap(Unavailable, cause))
	require.Equal(t, Unavailable, Of(err))
	require.ErrorIs(t, err, cause)
	require.EqualError(t, err, "push: disk full")
	require.NoError(t, Wrap(Invalid, nil))
	require.Equal(t, time.Second, RetryAfter(fmt.Errorf("x: %w", &Error{Kind: Limited, RetryAfter: time.Second, Err: cause})))
}
