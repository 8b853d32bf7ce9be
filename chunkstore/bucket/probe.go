package bucket

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
)

// probePrefix cannot be a tenant's folder: "~" is in no tenant ID.
const probePrefix = "~duramen/probe/"

// Probe checks that the bucket honours PutIfAbsent, on which all manifests rest, by creating one scratch object twice.
//
// ErrUnconditional means that the second put succeeded: do not write to this bucket. Any other error means that the
// bucket could not be asked. The scratch object is deleted when the bucket allows it.
func Probe(ctx context.Context, b Bucket) error {
	key := probePrefix + rand.Text()
	// The name is random: should the key be taken, then by this very call, whose first answer was lost.
	if err := b.PutIfAbsent(ctx, key, []byte("first")); err != nil && !errors.Is(err, ErrExists) {
		return fmt.Errorf("probe %s: %w", b.Name(), err)
	}
	err := b.PutIfAbsent(ctx, key, []byte("second"))
	if err == nil {
		err = ErrUnconditional
	} else if errors.Is(err, ErrExists) {
		err = nil
	}
	// A scratch object that stays is litter, no reason to refuse the bucket.
	_ = b.Delete(ctx, key)
	if err != nil {
		return fmt.Errorf("probe %s: %w", b.Name(), err)
	}
	return nil
}
