package salvage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// Manifests is where the new block is listed: manifest.Owner.
type Manifests interface {
	Lost(ctx context.Context, tenantID string, l manifest.LostRange) error
	Swap(ctx context.Context, tenantID string, change manifest.Change) (version uint64, err error)
}

// noCompactMark tells peers to leave a block alone, as all of them read it.
type noCompactMark struct {
	ID      string `json:"id"`
	Version int    `json:"version"`
	Details string `json:"details"`
	// Time is in seconds since the Unix epoch.
	Time   int64  `json:"no_compact_time"`
	Reason string `json:"reason"`
}

const (
	noCompactMarkName = "no-compact-mark.json"
	// markReason is one of those that all peers know.
	markReason = "manual"
)

// Commit puts what Run has made in the place of the damaged block: first the report and the marks for peers, then the
// lost times, so that no query sees the new block without a warning, then the swap. Of a block of which nothing was
// readable the samples leave the manifest. The objects of the damaged block stay for cfg.Keep.
//
// It may be repeated after an error. manifest.ErrConflict means that somebody else has dealt with the block: what Run has
// written is left to the sweep, and nothing is to be done.
func Commit(ctx context.Context, cfg Config, bkt bucket.Bucket, manifests Manifests, res *Result) error {
	if err := commit(ctx, cfg, bkt, manifests, res); err != nil {
		return fmt.Errorf("replace damaged block %s: %w", res.Report.Block.ULID, err)
	}
	return nil
}

func commit(ctx context.Context, cfg Config, bkt bucket.Bucket, manifests Manifests, res *Result) error {
	r := res.Report
	if res.Healed {
		return putReport(ctx, bkt, r)
	}
	if err := putReport(ctx, bkt, r); err != nil {
		return err
	}
	if err := mark(ctx, bkt, r); err != nil {
		return err
	}
	for _, l := range r.LostRanges() {
		if err := manifests.Lost(ctx, r.Tenant, l); err != nil {
			return err
		}
	}
	old := r.Block.ULID
	change := manifest.Change{Keep: map[ulid.ULID]int64{old: r.WrittenAt + cfg.Keep.Milliseconds()}}
	if res.Empty {
		change.Drop = []ulid.ULID{old}
	} else {
		change.Add, change.Replace = []manifest.Block{res.Block}, []ulid.ULID{old}
	}
	_, err := manifests.Swap(ctx, r.Tenant, change)
	return err
}

func putReport(ctx context.Context, bkt bucket.Bucket, r *Report) error {
	data, err := r.Marshal()
	if err != nil {
		return err
	}
	return unavailable(bkt.Put(ctx, ReportKey(r.Tenant, r.Block.ULID), bytes.NewReader(data), int64(len(data))))
}

// mark writes the marks at both places where peers look. A mark that is there stays.
func mark(ctx context.Context, bkt bucket.Bucket, r *Report) error {
	id := r.Block.ULID
	data, err := json.Marshal(noCompactMark{
		ID: id.String(), Version: 1, Time: r.WrittenAt / 1000, Reason: markReason,
		Details: "the block is damaged and was replaced, see " + ReportKey(r.Tenant, id),
	})
	if err != nil {
		return err
	}
	for _, key := range []string{
		block.Key(r.Tenant, id, noCompactMarkName), fmt.Sprintf("%s/markers/%s-%s", r.Tenant, id, noCompactMarkName),
	} {
		if err := bkt.PutIfAbsent(ctx, key, data); err != nil && !errors.Is(err, bucket.ErrExists) {
			return unavailable(err)
		}
	}
	return nil
}
