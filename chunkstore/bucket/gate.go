package bucket

import (
	"context"
	"sync/atomic"
)

// Gate is a bucket that takes no PutIfAbsent before Probe has succeeded, so that a process can start, take writes and
// answer from its own disk while the bucket is away. Whatever fails to be asked is asked again by the next PutIfAbsent.
type Gate struct {
	Bucket
	open atomic.Bool
}

// NewGate returns a closed gate in front of b.
func NewGate(b Bucket) *Gate { return &Gate{Bucket: b} }

// Probe is Probe of the bucket behind the gate; once that has succeeded it returns nil without asking.
func (g *Gate) Probe(ctx context.Context) error {
	if g.open.Load() {
		return nil
	}
	if err := Probe(ctx, g.Bucket); err != nil {
		return err
	}
	g.open.Store(true)
	return nil
}

// PutIfAbsent implements Bucket. With the error of a probe nothing was written under key.
func (g *Gate) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	if err := g.Probe(ctx); err != nil {
		return err
	}
	return g.Bucket.PutIfAbsent(ctx, key, data)
}
