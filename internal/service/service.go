// Package service owns the lifecycle of everything that lives as long as the process: starting, running, stopping. It
// knows nothing of what a service does. Read cmd/duramen/app next for the table that starts services in order.
package service

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// State is where a service stands in its life. It is the one truth about "running".
type State uint32

// The states, in the order in which a service passes through them.
const (
	New State = iota
	Starting
	Running
	Stopping
	// Terminated follows an orderly stop, Failed an error of any phase.
	Terminated
	Failed
)

var stateNames = [...]string{"new", "starting", "running", "stopping", "terminated", "failed"}

// String returns the state in lower case, as it stands on the status page.
func (s State) String() string { return stateNames[s] }

// Phases are the three functions of a service. Each may be nil.
type Phases struct {
	// Starting replays, joins and listens; the service is ready when it returns nil. ctx ends when Stop is called.
	Starting func(ctx context.Context) error
	// Running blocks until ctx ends or the service fails. nil means: run until stopped.
	Running func(ctx context.Context) error
	// Stopping drains in reverse. cause is what ended Starting or Running, nil for an orderly stop. It is called once
	// whenever Starting was called.
	Stopping func(cause error) error
}

// Service runs Phases in order, once. Its goroutine ends before Stop returns.
type Service struct {
	name   string
	phases Phases

	mu      sync.Mutex
	state   State
	err     error
	failed  bool // Starting returned an error, be it that it was asked to stop
	cancel  context.CancelFunc
	started chan struct{} // closed when Starting is over, well or not
	done    chan struct{} // closed when the service is Terminated or Failed
}

// NewService names a service and its phases. It starts nothing.
func NewService(name string, phases Phases) *Service {
	return &Service{name: name, phases: phases, started: make(chan struct{}), done: make(chan struct{})}
}

// Name returns the name given to NewService.
func (s *Service) Name() string { return s.name }

// State returns the current state.
func (s *Service) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Start begins the life of the service and waits until it runs. It returns the error of a failed start, wrapped in the
// service's name. When ctx ends first, the service is stopped.
func (s *Service) Start(ctx context.Context) error {
	s.mu.Lock()
	if s.state != New {
		defer s.mu.Unlock()
		return fmt.Errorf("start %s: service is %s", s.name, s.state)
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.state, s.cancel = Starting, cancel
	s.mu.Unlock()

	go s.live(life)
	select {
	case <-s.started:
	case <-ctx.Done():
		cancel()
		<-s.started
	}
	if ctx.Err() != nil {
		return errors.Join(fmt.Errorf("start %s: %w", s.name, context.Cause(ctx)), s.Stop())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.failed:
		return nil
	case s.err == nil: // by Stop
		return fmt.Errorf("start %s: %w", s.name, context.Canceled)
	default:
		return s.err
	}
}

// Stop asks the service to end and waits until it did. It is idempotent and returns what Err returns.
func (s *Service) Stop() error {
	s.mu.Lock()
	if s.state == New {
		s.state = Terminated
		close(s.started)
		close(s.done)
		s.mu.Unlock()
		return nil
	}
	cancel := s.cancel
	s.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	<-s.done
	return s.Err()
}

// Done is closed when the service has ended, by Stop or by failure.
func (s *Service) Done() <-chan struct{} { return s.done }

// Err returns why the service failed, wrapped in its name; nil while it lives and after an orderly stop.
func (s *Service) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *Service) set(state State) {
	s.mu.Lock()
	s.state = state
	s.mu.Unlock()
}

// live runs the three phases in order. Start owns its goroutine; Stop waits for it.
func (s *Service) live(ctx context.Context) {
	defer s.cancel()
	var cause error
	if s.phases.Starting != nil {
		cause = s.phases.Starting(ctx)
	}
	if cause == nil {
		s.set(Running)
		close(s.started)
		if s.phases.Running != nil {
			cause = s.phases.Running(ctx)
		} else {
			<-ctx.Done()
		}
		if errors.Is(cause, context.Canceled) && ctx.Err() != nil {
			cause = nil
		}
		s.end(cause, false)
		return
	}
	s.mu.Lock()
	s.failed = true
	s.mu.Unlock()
	s.end(cause, errors.Is(cause, context.Canceled) && ctx.Err() != nil)
	close(s.started)
}

// end runs Stopping and records the outcome. A start that was asked to stop, and did, has not failed.
func (s *Service) end(cause error, asked bool) {
	s.set(Stopping)
	var err error
	if !asked {
		err = cause
	}
	if s.phases.Stopping != nil {
		err = errors.Join(err, s.phases.Stopping(cause))
	}
	s.mu.Lock()
	s.state = Terminated
	if err != nil {
		s.state = Failed
		s.err = fmt.Errorf("%s: %w", s.name, err)
	}
	s.mu.Unlock()
	close(s.done)
}
