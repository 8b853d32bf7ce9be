package tenantmark

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

// marksAtOnce is how many marks are read at a time.
const marksAtOnce = 8

// Watch knows the marks of all tenants as of its last look. Safe for concurrent use.
type Watch struct {
	bkt bucket.Bucket

	mu    sync.Mutex
	known map[string]seen
}

// seen is a mark and the object that it was read from.
type seen struct {
	mark   Mark
	object bucket.Object
}

// NewWatch returns a watch that has not looked yet.
func NewWatch(bkt bucket.Bucket) *Watch { return &Watch{bkt: bkt, known: map[string]seen{}} }

// Look returns all marks at the top of the bucket, by tenant. It costs one listing, and a read for each mark that is new or
// another one. After an error, of kind Unavailable, what was known stays known.
func (w *Watch) Look(ctx context.Context) (map[string]Mark, error) {
	objects, err := List(ctx, w.bkt)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	known := make(map[string]seen, len(objects))
	unread := map[string]bucket.Object{}
	for id, o := range objects {
		if old, ok := w.known[id]; ok && old.object == o {
			known[id] = old
		} else {
			unread[id] = o
		}
	}
	w.mu.Unlock()
	if err := w.read(ctx, unread, known); err != nil {
		return nil, err
	}
	marks := make(map[string]Mark, len(known))
	for id, s := range known {
		marks[id] = s.mark
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known = known
	return marks, nil
}

func (w *Watch) read(ctx context.Context, unread map[string]bucket.Object, into map[string]seen) error {
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(marksAtOnce)
	for id, o := range unread {
		g.Go(func() error {
			m, found, err := get(ctx, w.bkt, o.Key)
			if err != nil {
				return fmt.Errorf("mark of tenant %s: %w", id, err)
			}
			if found {
				mu.Lock()
				defer mu.Unlock()
				into[id] = seen{m, o}
			}
			return nil
		})
	}
	return g.Wait()
}
