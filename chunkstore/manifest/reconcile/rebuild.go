package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// ErrTombstones means that a rebuild was asked for without accepting what it cannot bring back. It is of kind Invalid.
var ErrTombstones = errors.New("a rebuilt manifest forgets which blocks were removed and what was deleted since the " +
	"last version that can be read")

// metaFetches is how many meta.json are read at a time for one tenant.
const metaFetches = 8

// RebuildOptions say what the operator accepts.
type RebuildOptions struct {
	// AcceptLostTombstones has to be set, unless it is a dry run.
	AcceptLostTombstones bool
	// Force rebuilds although the newest version can be read.
	Force bool
	// DryRun writes nothing.
	DryRun bool
}

// Rebuilt is what a rebuild found.
type Rebuilt struct {
	// Manifest is what was written; in a dry run its Version is 0.
	Manifest *manifest.Manifest
	// Readable is the newest version that could be read, whose memory of removals, losses and deletions and whose
	// annotations were taken over; 0 when there is none: then what was deleted and is in a block is visible again. Newest
	// is the highest version there was.
	Readable, Newest uint64
	// Left are blocks that are not in the manifest, in the order of their ULIDs.
	Left []Left
}

// Left is a block that a rebuild left out.
type Left struct {
	ULID   ulid.ULID
	Reason string
	// Missing is set when the last readable version lists the block and its objects are not there, nor any block that
	// was made of it: its samples are lost unless somebody has them.
	Missing bool
}

// Restorer is what a rebuild needs of manifest.Owner.
type Restorer interface {
	Readable(ctx context.Context, tenantID string) (m *manifest.Manifest, newest uint64, err error)
	Restore(ctx context.Context, tenantID string, s manifest.State, force bool) (*manifest.Manifest, error)
}

// Rebuild makes a manifest for a tenant from what lies in the bucket: every block that is complete, is not marked for
// deletion, is not thinned out, was not removed as far as a readable version remembers, and of which nothing was made
// that is complete itself, as compaction.sources tell. Compacted blocks win over their sources. It costs one listing and
// one small read a block.
//
// It is the way out when the newest version cannot be read, or when all versions are gone. Stop nothing for it: whoever
// announces a block meanwhile fails until it is done, and tries again. What a block holds is not read: run a check of
// the blocks afterwards.
func Rebuild(ctx context.Context, bkt bucket.Bucket, owner Restorer, tenantID string, o RebuildOptions) (*Rebuilt, error) {
	if err := tenant.ValidateID(tenantID); err != nil {
		return nil, err
	}
	if !o.AcceptLostTombstones && !o.DryRun {
		return nil, errkind.New(errkind.Invalid, "rebuild manifest of tenant %s: %w", tenantID, ErrTombstones)
	}
	r, err := rebuild(ctx, bkt, owner, tenantID, o)
	if err != nil {
		return nil, fmt.Errorf("rebuild manifest of tenant %s: %w", tenantID, err)
	}
	return r, nil
}

func rebuild(ctx context.Context, bkt bucket.Bucket, owner Restorer, tenantID string, o RebuildOptions) (*Rebuilt, error) {
	last, newest, err := owner.Readable(ctx, tenantID)
	if err != nil {
		return nil, err
	}
	if newest > 0 && last.Version == newest && !o.Force {
		return nil, errkind.New(errkind.Invalid, "version %d: %w", newest, manifest.ErrReadable)
	}
	l, err := list(ctx, bkt, tenantID)
	if err != nil {
		return nil, err
	}
	candidates, err := judgeAll(ctx, bkt, tenantID, l)
	if err != nil {
		return nil, err
	}
	out := &Rebuilt{Readable: last.Version, Newest: newest}
	state := out.choose(l, candidates, last)
	if o.DryRun {
		out.Manifest = &manifest.Manifest{
			Tenant: tenantID, Blocks: state.Blocks, Removed: state.Removed, Lost: state.Lost,
			Deletions: state.Deletions, NextDeletion: state.NextDeletion, Doomed: state.Doomed,
		}
		return out, nil
	}
	out.Manifest, err = owner.Restore(ctx, tenantID, state, o.Force)
	return out, err
}

// judgeAll judges each block folder in the listing.
func judgeAll(ctx context.Context, bkt bucket.Bucket, tenantID string, l *listing) (map[ulid.ULID]*candidate, error) {
	candidates := make(map[ulid.ULID]*candidate, len(l.folders))
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(metaFetches)
	for id, f := range l.folders {
		g.Go(func() error {
			c, err := judge(ctx, bkt, tenantID, id, f)
			mu.Lock()
			defer mu.Unlock()
			candidates[id] = c
			return err
		})
	}
	return candidates, g.Wait()
}

// choose decides which blocks make the new state.
func (r *Rebuilt) choose(l *listing, candidates map[ulid.ULID]*candidate, last *manifest.Manifest) manifest.State {
	state := manifest.State{
		Removed: last.Removed, Lost: last.Lost,
		Deletions: last.Deletions, NextDeletion: last.NextDeletion, Doomed: last.Doomed,
	}
	removed := map[ulid.ULID]bool{}
	for _, b := range last.Removed {
		removed[b.ULID] = true
	}
	var whole []manifest.Block
	for id, c := range candidates {
		_, marked := l.folders[id].markedSince()
		switch {
		case removed[id]:
			r.leave(id, fmt.Sprintf("version %d remembers its removal", last.Version))
		case marked:
			r.leave(id, "it is marked for deletion")
		case c.verdict != verdictWhole:
			r.leave(id, fmt.Sprintf("it is %s: %s", c.verdict, c.reason))
		default:
			whole = append(whole, c.block)
		}
	}
	state.Blocks = r.withoutSuperseded(whole, last)
	r.findMissing(last, candidates, state.Blocks)
	slices.SortFunc(r.Left, func(a, b Left) int { return a.ULID.Compare(b.ULID) })
	return state
}

func (r *Rebuilt) leave(id ulid.ULID, reason string) {
	r.Left = append(r.Left, Left{ULID: id, Reason: reason})
}

// withoutSuperseded takes the blocks with most sources first, the younger of equal ones, and leaves out what they cover.
func (r *Rebuilt) withoutSuperseded(whole []manifest.Block, last *manifest.Manifest) []manifest.Block {
	byReach(whole)
	covered := newCoverage(last.Removed)
	var blocks []manifest.Block
	for _, b := range whole {
		if covered.covers(&b) {
			r.leave(b.ULID, "its samples are in other blocks, or were removed")
			continue
		}
		covered.add(&b)
		if known, ok := last.Find(b.ULID); ok {
			b.AddedAt, b.AddedVersion, b.NoCompact = known.AddedAt, known.AddedVersion, known.NoCompact
			b.SidecarBytes, b.DirectoryBytes = known.SidecarBytes, known.DirectoryBytes
			b.Deleted = known.Deleted
		}
		blocks = append(blocks, b)
	}
	return blocks
}

// byReach sorts blocks by the number of their sources and then by age, so that what others were made into comes first.
func byReach(blocks []manifest.Block) {
	slices.SortFunc(blocks, func(a, b manifest.Block) int {
		return cmp.Or(cmp.Compare(len(b.Sources), len(a.Sources)), cmp.Compare(b.Level, a.Level), b.ULID.Compare(a.ULID))
	})
}

// findMissing names blocks of the last readable version that are nowhere.
func (r *Rebuilt) findMissing(last *manifest.Manifest, candidates map[ulid.ULID]*candidate, blocks []manifest.Block) {
	covered := newCoverage(nil)
	for i := range blocks {
		covered.add(&blocks[i])
	}
	for i := range last.Blocks {
		b := &last.Blocks[i]
		if _, there := candidates[b.ULID]; there || covered.replaced(b) {
			continue
		}
		r.Left = append(r.Left, Left{
			ULID: b.ULID, Missing: true,
			Reason: fmt.Sprintf("version %d lists it and it is not in the bucket", last.Version),
		})
	}
}
