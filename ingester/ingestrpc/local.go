package ingestrpc

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/tracing"
	"github.com/duramendb/duramen/tenant"
)

// Local is the ingester of this process behind the same method as a Peer. Safe for concurrent use.
type Local struct {
	most     int64
	commits  *committer
	inflight atomic.Int64

	mu     sync.RWMutex // held for reading from the look at closed to the section's begin
	closed bool
}

// NewLocal returns a peer that pushes into pusher. It starts nothing.
func NewLocal(cfg ClientConfig, pusher Pusher, log *slog.Logger) *Local {
	return &Local{most: int64(cfg.MaxInflightBytes), commits: newCommitter(pusher, log, newServerMetrics(nil))}
}

// Send is as Peer.Send. After the deadline of ctx the section is not begun any more; one that has begun is waited for.
func (l *Local) Send(ctx context.Context, tenantID string, section []byte, done func(*duramenpb.PushResult, error)) {
	if err := l.begin(ctx, tenantID, section, done); err != nil {
		done(nil, err)
	}
}

func (l *Local) begin(
	ctx context.Context, tenantID string, section []byte, done func(*duramenpb.PushResult, error),
) error {
	header, err := duramenpb.ParseSectionHeader(section)
	switch {
	case ctx.Err() != nil:
		return errkind.Wrap(errkind.Unavailable, context.Cause(ctx))
	case err != nil:
		return undecodable(err)
	case header.Tenant != tenantID:
		return errkind.New(errkind.Internal, "a section of tenant %s is sent as one of %s", header.Tenant, tenantID)
	}
	if err := tenant.ValidateID(tenantID); err != nil {
		return err
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return errkind.Wrap(errkind.Unavailable, errClientClosed)
	}
	if size := int64(len(section)); l.inflight.Add(size) > l.most {
		l.inflight.Add(-size)
		return errkind.Wrap(errkind.Unavailable, errFull)
	}
	a := &arrival{tenant: tenantID, incarnation: header.Incarnation, section: section, to: &localAnswer{l, done}}
	a.deadline, _ = ctx.Deadline()
	_, a.span = tracing.Start(ctx, "ingester.section")
	l.commits.put(a)
	return nil
}

// Failing is as Peer.Failing.
func (l *Local) Failing() bool { return false }

// Close waits until every section has its answer. Sections that come later are refused.
func (l *Local) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.commits.wait()
	return nil
}

type localAnswer struct {
	local *Local
	done  func(*duramenpb.PushResult, error)
}

// answer implements answerer.
func (l *localAnswer) answer(a *arrival, verdict []byte, err error) {
	l.local.inflight.Add(-int64(len(a.section)))
	if err != nil {
		l.done(nil, err)
		return
	}
	var r duramenpb.PushResult
	if err := duramenpb.DecodeResult(verdict, &r); err != nil {
		l.done(nil, errkind.Wrap(errkind.Internal, err))
		return
	}
	l.done(&r, nil)
}
