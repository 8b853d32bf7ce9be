package manifest

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/manifest/reconcile"
	"github.com/duramendb/duramen/cmd/duramenctl/store"
	"github.com/duramendb/duramen/internal/cli"
)

func rebuildCommand() cli.Command {
	var s settings
	var accept, force bool
	return cli.Command{
		Name: "rebuild", Args: "[flags] TENANT", Summary: "make a manifest from the blocks in the bucket, when it cannot be read",
		Long: `Every block that is complete, is not marked for deletion and is in no other block enters the new manifest, as the
blocks' own compaction.sources tell. What the newest version that can be read remembers of removed blocks, lost samples and
deletions is taken over. What was removed after it comes back if its objects are still there, samples that were deleted after
it show again as long as a block has them, and a range that was lost after it is not warned of any more: that is what
-accept-lost-tombstones accepts. Without that flag nothing is written, and what would be is shown. A manifest that can be read
is left alone unless -force is given.

Servers may run meanwhile. Nothing that a block holds is read: run "duramenctl blocks check" afterwards.

` + store.Help + `

Exit codes: 0 shown or written; 1 the bucket cannot be read or written, or the manifest can be read; 2 wrong usage; 3 shown or
written, and a block that a readable version lists is not in the bucket.`,
		Example: `duramenctl manifest rebuild -bucket=./data/bucket team-a
duramenctl manifest rebuild -bucket=./data/bucket -accept-lost-tombstones team-a`,
		Flags: func(f *flag.FlagSet) {
			s.registerFlags(f)
			f.BoolVar(&accept, "accept-lost-tombstones", false, "Write the new manifest, and accept that it forgets what was removed, "+
				"deleted or lost since the last version that can be read.")
			f.BoolVar(&force, "force", false, "Rebuild although the newest version can be read.")
		},
		Run: func(ctx context.Context, env cli.Env, args []string) error {
			if len(args) != 1 {
				return cli.Usagef("give one tenant")
			}
			tenantID, err := tenantArgument(args[0])
			if err != nil {
				return err
			}
			return s.with(env, func(p *place) error {
				return p.rebuild(ctx, tenantID, reconcile.RebuildOptions{AcceptLostTombstones: accept, Force: force, DryRun: !accept})
			})
		},
	}
}

// rebuilt is what a rebuild did, or would do.
type rebuilt struct {
	Tenant string `json:"tenant"`
	// Newest is the highest version that there was, Readable the newest that could be read; 0 is none.
	Newest   uint64 `json:"newest"`
	Readable uint64 `json:"readable"`
	// Written is the version that was written, 0 when none was.
	Written  uint64             `json:"written"`
	Manifest *manifest.Manifest `json:"manifest"`
	// Change is how the new manifest differs from the readable one.
	Change change    `json:"change"`
	Left   []leftOut `json:"left_out"`
}

// leftOut is a block that did not enter the new manifest.
type leftOut struct {
	ULID   ulid.ULID `json:"ulid"`
	Reason string    `json:"reason"`
	// Missing is set when its samples are in no block of the bucket.
	Missing bool `json:"missing"`
}

func (p *place) rebuild(ctx context.Context, tenantID string, o reconcile.RebuildOptions) error {
	if _, err := p.tenants(ctx, tenantID); err != nil {
		return err
	}
	before, _, err := p.manifests.Readable(ctx, tenantID)
	if err != nil {
		return err
	}
	r, err := reconcile.Rebuild(ctx, p.bkt, p.manifests, tenantID, o)
	if errors.Is(err, manifest.ErrReadable) {
		return fmt.Errorf("%w: there is nothing to rebuild (-force does it nevertheless)", err)
	}
	if err != nil {
		return err
	}
	out := rebuilt{
		Tenant: tenantID, Newest: r.Newest, Readable: r.Readable, Written: r.Manifest.Version, Manifest: r.Manifest,
		Change: compare(before, r.Manifest), Left: []leftOut{},
	}
	var wrong []error
	for _, b := range r.Left {
		out.Left = append(out.Left, leftOut{b.ULID, b.Reason, b.Missing})
		if b.Missing {
			wrong = append(wrong, fmt.Errorf("block %s: %s", b.ULID, b.Reason))
		}
	}
	if err := p.writeRebuilt(out); err != nil {
		return err
	}
	return cli.Wrong(errors.Join(wrong...))
}

func (p *place) writeRebuilt(r rebuilt) error {
	if p.format == "json" {
		return json.NewEncoder(p.env.Stdout).Encode(r)
	}
	var out strings.Builder
	switch {
	case r.Newest == 0:
		fmt.Fprintf(&out, "tenant %s has no version of a manifest\n", r.Tenant)
	case r.Readable == 0:
		fmt.Fprintf(&out, "tenant %s: no version of the manifest can be read; the newest is %d\n", r.Tenant, r.Newest)
	case r.Readable < r.Newest:
		fmt.Fprintf(&out, "tenant %s: version %d of the manifest cannot be read; compared with version %d, which can:\n", r.Tenant,
			r.Newest, r.Readable)
	default:
		fmt.Fprintf(&out, "tenant %s: version %d of the manifest can be read; compared with it:\n", r.Tenant, r.Newest)
	}
	r.Change.write(&out)
	for _, b := range r.Left {
		if b.Missing {
			fmt.Fprintf(&out, "lost: %s: %s\n", b.ULID, b.Reason)
		} else {
			fmt.Fprintf(&out, "left out: %s: %s\n", b.ULID, b.Reason)
		}
	}
	if r.Written > 0 {
		fmt.Fprintf(&out, "written: version %d with %d blocks\n", r.Written, len(r.Manifest.Blocks))
	} else {
		fmt.Fprintf(&out, "nothing was written: with -accept-lost-tombstones, version %d with %d blocks would be\n", r.Newest+1,
			len(r.Manifest.Blocks))
	}
	_, err := fmt.Fprint(p.env.Stdout, out.String())
	return err
}
