package blocks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/duramendb/duramen/chunkstore/blockcheck"
	"github.com/duramendb/duramen/cmd/duramenctl/store"
	"github.com/duramendb/duramen/internal/cli"
	"github.com/duramendb/duramen/tenant"
)

// onItsWay is how old a block is that should have entered its manifest: an upload announces its block within seconds, and
// is repeated when that fails.
const onItsWay = time.Hour

// Verification is a check of all blocks of one tenant that accounts for samples as well: what lies in the bucket and is not
// listed has to be in a block that is, or to be gone on purpose.
type Verification struct {
	Bucket store.Flags
	// Format is table or json.
	Format string
	// Shallow leaves out index and chunks.
	Shallow bool
	// Show is how many faults of one block are shown.
	Show int
}

// Run verifies a tenant and writes what it finds. What is wrong is an error marked as cli.ErrWrong.
func (v *Verification) Run(ctx context.Context, env cli.Env, tenantID string, now time.Time) (err error) {
	if err := tenant.ValidateID(tenantID); err != nil {
		return cli.Usagef("%w", err)
	}
	s := checkSettings{settings: settings{bucket: v.Bucket, format: v.Format}, shallow: v.Shallow, show: v.Show}
	if err := s.validate(); err != nil {
		return err
	}
	p, err := s.open(env)
	if err != nil {
		return err
	}
	defer store.Close(p.bkt, &err)
	c := &checker{place: p, env: env, s: s}
	checked := c.run(ctx, tenantID, nil)
	if checked != nil && !errors.Is(checked, cli.ErrWrong) {
		return checked
	}
	inv, err := blockcheck.Take(ctx, p.bkt, p.manifests, tenantID)
	if inv == nil {
		return err
	}
	if err != nil {
		return checked // the manifest is damaged, which has been said
	}
	lost, err := v.account(ctx, env, p, inv, now)
	if err != nil {
		return err
	}
	return errors.Join(checked, lost)
}

// accounted is what is said of a tenant's samples as a whole.
type accounted struct {
	Tenant  string `json:"tenant"`
	Version uint64 `json:"version"`
	// Sources is how many blocks of level 1 the listed ones are made of, Twice how many of these are in two.
	Sources   int                    `json:"sources"`
	Twice     int                    `json:"sources_twice"`
	Uncovered []blockcheck.Uncovered `json:"uncovered"`
}

// account writes where the samples of unlisted blocks are, and returns as wrong that some are nowhere.
func (v *Verification) account(
	ctx context.Context, env cli.Env, p *place, inv *blockcheck.Inventory, now time.Time,
) (wrong, _ error) {
	uncovered, err := inv.Uncovered(ctx, p.bkt, inv.Manifest.Tenant)
	if err != nil {
		return nil, err
	}
	a := accounted{
		Tenant: inv.Manifest.Tenant, Version: inv.Manifest.Version, Twice: len(blockcheck.Twice(inv.Manifest)),
		Uncovered: append([]blockcheck.Uncovered{}, uncovered...),
	}
	sources := map[string]struct{}{}
	for i := range inv.Manifest.Blocks {
		for _, source := range inv.Manifest.Blocks[i].Sources {
			sources[source.String()] = struct{}{}
		}
	}
	a.Sources = len(sources)
	nowhere := 0
	for i := range uncovered {
		if now.Sub(uncovered[i].Newest) > onItsWay {
			nowhere++
		}
	}
	if nowhere > 0 {
		wrong = cli.Wrong(fmt.Errorf("%d blocks in the bucket have samples that are in no listed block", nowhere))
	}
	if v.Format == "json" {
		return wrong, json.NewEncoder(env.Stdout).Encode(a)
	}
	return wrong, a.write(env, now)
}

func (a *accounted) write(env cli.Env, now time.Time) error {
	for i := range a.Uncovered {
		u := &a.Uncovered[i]
		name, why := a.Tenant+"/"+u.Block.String(), u.Fault
		switch {
		case why != "":
		case u.Removed:
			why = fmt.Sprintf("it left the manifest, and %d of its sources are in no listed block", len(u.Sources))
		case now.Sub(u.Newest) <= onItsWay:
			why = fmt.Sprintf("written %v ago, on its way into the manifest", now.Sub(u.Newest).Round(time.Second))
		default:
			why = fmt.Sprintf("it is in no manifest, and %d of its sources are in no listed block", len(u.Sources))
		}
		if _, err := fmt.Fprintf(env.Stdout, "%s: %s\n", name, why); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(env.Stdout, "version %d lists blocks of %d sources, %d of them twice; %d unlisted blocks have samples that no listed one has\n",
		a.Version, a.Sources, a.Twice, len(a.Uncovered))
	return err
}
