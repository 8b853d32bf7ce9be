package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// Gate is a bucket that takes no PutIfAbsent before Probe has succeeded, so that a process can start, take writes and
// answer from its own disk while the bucket is away. Whatever fails to be asked is asked again by the next PutIfAbsent.
//
// With a single writer it opens for a store without put-if-absent as well, and then looks whether the key is taken before
// it puts. That is as good as long as nobody else writes.
type Gate struct {
	Bucket

	singleWriter bool
	log          *slog.Logger
	state        atomic.Int32
	looking      *semaphore.Weighted // one PutIfAbsent at a time between its look and its put
}

// The states of a Gate. It never leaves the last two.
const (
	gateClosed int32 = iota
	gateOpen
	gateLooks // open, and PutIfAbsent is a look and a put
)

// NewGate returns a closed gate in front of b. singleWriter says that no other process writes to b, ever.
func NewGate(b Bucket, singleWriter bool, log *slog.Logger) *Gate {
	return &Gate{Bucket: b, singleWriter: singleWriter, log: log, looking: semaphore.NewWeighted(1)}
}

// Probe is Probe of the bucket behind the gate; once that has opened the gate it returns nil without asking.
func (g *Gate) Probe(ctx context.Context) error {
	if g.state.Load() != gateClosed {
		return nil
	}
	err := Probe(ctx, g.Bucket)
	switch {
	case err == nil:
		g.state.Store(gateOpen)
	case g.singleWriter && errors.Is(err, ErrUnconditional):
		if g.state.CompareAndSwap(gateClosed, gateLooks) {
			g.log.Warn("the bucket does not honour put-if-absent: a second process that writes to it will lose data",
				"bucket", g.Name())
		}
	default:
		return err
	}
	return nil
}

// PutIfAbsent implements Bucket. With the error of a probe nothing was written under key.
func (g *Gate) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	if err := g.Probe(ctx); err != nil {
		return err
	}
	if g.state.Load() == gateLooks {
		return g.lookAndPut(ctx, key, data)
	}
	return g.Bucket.PutIfAbsent(ctx, key, data)
}

func (g *Gate) lookAndPut(ctx context.Context, key string, data []byte) error {
	if err := g.looking.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("put %s if absent: %w", key, err)
	}
	defer g.looking.Release(1)
	switch _, err := g.Stat(ctx, key); {
	case err == nil:
		return fmt.Errorf("put %s if absent: %w", key, ErrExists)
	case !errors.Is(err, ErrNotFound):
		return fmt.Errorf("put %s if absent: %w", key, err)
	}
	return g.Put(ctx, key, bytes.NewReader(data), int64(len(data)))
}
