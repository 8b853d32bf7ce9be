package service

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLifeInOrder(t *testing.T) {
	var story []string
	s := NewService("ingester", Phases{
		Starting: func(context.Context) error { story = append(story, "starting"); return nil },
		Running: func(ctx context.Context) error {
			story = append(story, "running")
			<-ctx.Done()
			return ctx.Err()
		},
		Stopping: func(cause error) error {
			require.NoError(t, cause)
			story = append(story, "stopping")
			return nil
		},
	})
	require.NoError(t, s.Start(t.Context()))
	require.Equal(t, Running, s.State())
	require.NoError(t, s.Stop())
	require.NoError(t, s.Stop(), "stop is idempotent")
	require.Equal(t, Terminated, s.State())
	require.Equal(t, []string{"starting", "running", "stopping"}, story)
	require.Error(t, s.Start(t.Context()), "a service lives once")
}

func TestFailedStartStopsAndNamesTheService(t *testing.T) {
	cause, stopped := errors.New("address in use"), false
	s := NewService("http server", Phases{
		Starting: func(context.Context) error { return cause },
		Running:  func(context.Context) error { t.Error("ran after a failed start"); return nil },
		Stopping: func(got error) error { stopped = errors.Is(got, cause); return nil },
	})
	err := s.Start(t.Context())
	require.ErrorIs(t, err, cause)
	require.EqualError(t, err, "http server: address in use")
	require.True(t, stopped)
	require.Equal(t, Failed, s.State())
	<-s.Done()
}

func TestFailureWhileRunning(t *testing.T) {
	cause := errors.New("listener closed")
	s := NewService("s", Phases{Running: func(context.Context) error { return cause }})
	require.NoError(t, s.Start(t.Context()))
	<-s.Done()
	require.ErrorIs(t, s.Stop(), cause)
}

func TestCancelledStartStopsTheService(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := NewService("s", Phases{Starting: func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() }})
	require.ErrorIs(t, s.Start(ctx), context.Canceled)
	require.NoError(t, s.Stop(), "it did what it was asked to do")
	require.Equal(t, Terminated, s.State())
	<-s.Done()
}

// TestStopDuringTheStart: whoever starts it hears of it, whoever stops it has no error to tell of.
func TestStopDuringTheStart(t *testing.T) {
	begun, cleaned := make(chan struct{}), errors.New("folder is not empty")
	for _, want := range []error{nil, cleaned} {
		s := NewService("s", Phases{
			Starting: func(ctx context.Context) error {
				begun <- struct{}{}
				<-ctx.Done()
				return fmt.Errorf("claim an ordinal: %w", context.Cause(ctx))
			},
			Stopping: func(cause error) error {
				require.ErrorIs(t, cause, context.Canceled)
				return want
			},
		})
		started := make(chan error)
		go func() { started <- s.Start(t.Context()) }()
		<-begun
		require.ErrorIs(t, s.Stop(), want)
		if want == nil {
			require.ErrorIs(t, <-started, context.Canceled)
		} else {
			require.ErrorIs(t, <-started, want)
		}
	}
}

func TestStopBeforeStart(t *testing.T) {
	s := NewService("s", Phases{})
	require.NoError(t, s.Stop())
	require.Equal(t, Terminated, s.State())
}
