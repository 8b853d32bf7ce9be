package merge

import (
	"context"
	"errors"
	"time"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

const (
	// firstPause, doubled each time up to mostPause, lies between two tries.
	firstPause = 100 * time.Millisecond
	mostPause  = 30 * time.Second

	// mostPatience ends before somebody takes the job for one that stands still.
	mostPatience = 15 * time.Minute
)

// patience repeats what fails for as long as the job has taken so far: what was read, merged and sent is kept, and to do
// it again would take as long. The zero value repeats nothing.
type patience struct{ began time.Time }

// keep calls try until it succeeds, the patience is over, or ctx ends. An object that is not there is an answer.
func (p patience) keep(ctx context.Context, try func() error) error {
	var failed time.Time // first
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		err := try()
		if err == nil || p.began.IsZero() || ctx.Err() != nil || errors.Is(err, bucket.ErrNotFound) {
			return err
		}
		now := time.Now()
		if failed.IsZero() {
			failed = now
		}
		if now.Add(pause).Sub(failed) > min(failed.Sub(p.began), mostPatience) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}
