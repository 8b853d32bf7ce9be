// Package salvage is the command that makes a new block of what is readable of a damaged one, by hand. The compactor does
// the same when it meets such a block; the command shows what would come of it first. Read package compactor/salvage next for
// how it is done.
package salvage

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/blockcheck"
	"github.com/duramendb/duramen/chunkstore/bucket/backend"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/cmd/duramenctl/store"
	"github.com/duramendb/duramen/compactor/salvage"
	"github.com/duramendb/duramen/internal/cli"
	"github.com/duramendb/duramen/tenant"
)

// settings are the flags.
type settings struct {
	bucket  store.Flags
	format  string
	scratch string
	apply   bool
	accept  bool
	memory  int64
	keep    time.Duration
}

// Command returns the command.
func Command() cli.Command {
	var s settings
	return cli.Command{
		Name: "salvage", Args: "[flags] TENANT [ULID...]", Summary: "make a new block of what is readable of a damaged one",
		Long: `The named blocks are read to the last byte, or all that the tenant's manifest lists. Of each one with a fault the report is
shown: what is wrong, what another copy of the same data says in its place, what other blocks hold, and what is lost. With -apply
the readable part becomes a new block, which takes the place of the damaged one in the manifest; the report is kept in the bucket,
queries over lost times carry a warning, and the objects of the damaged block stay for -keep. A running compactor does the same
by itself when it meets the block. Servers may run meanwhile.

What the damaged block was made of is read as well, as long as it is in the bucket: for two hours, and for as long as objects of
the block are missing. A block of which nothing is in the bucket is left as it is, unless all of it can be made again: bring it back
from a backup, or give it up with -apply -accept-loss and its ULID.

A salvage needs the size of the block on the local disk.

` + store.Help + `

Exit codes: 0 nothing is lost; 1 the bucket cannot be read or written; 2 wrong usage; 3 samples are lost, or would be.`,
		Example: `duramenctl salvage -bucket=./data/bucket team-a
duramenctl salvage -bucket=./data/bucket team-a 01KAH2V5X4S3P8Y4QW4Q5B6Z7C
duramenctl salvage -bucket=./data/bucket -apply team-a 01KAH2V5X4S3P8Y4QW4Q5B6Z7C
duramenctl salvage -bucket=./data/bucket -apply -accept-loss team-a 01KAH2V5X4S3P8Y4QW4Q5B6Z7C`,
		Flags: func(f *flag.FlagSet) {
			s.bucket.RegisterFlags(f)
			f.StringVar(&s.format, "format", "table", "table or json.")
			f.StringVar(&s.scratch, "scratch", os.TempDir(), "Directory for the files of a salvage.")
			f.BoolVar(&s.apply, "apply", false, "Write the new blocks and put them in the place of the damaged ones.")
			f.BoolVar(&s.accept, "accept-loss", false, "Give up the named blocks of which nothing is in the bucket.")
			f.Int64Var(&s.memory, "max-memory-bytes", salvage.DefaultMaxMemoryBytes,
				"The most memory that a salvage takes, roughly: about 100 bytes for each symbol, 16 for each chunk. A block that needs\n"+
					"more is left as it is.")
			f.DurationVar(&s.keep, "keep", salvage.DefaultKeep, "How long the objects of a damaged block are kept.")
		},
		Run: func(ctx context.Context, env cli.Env, args []string) (err error) {
			tenantID, ids, err := s.arguments(args)
			if err != nil {
				return err
			}
			bkt, err := s.bucket.Open(env)
			if err != nil {
				return err
			}
			defer store.Close(bkt, &err)
			owner := manifest.NewOwner(bkt, time.Now, slog.New(slog.DiscardHandler), nil)
			c := &command{settings: s, env: env, bkt: bkt, manifests: owner, tenant: tenantID}
			return c.run(ctx, ids)
		},
	}
}

func (s *settings) arguments(args []string) (tenantID string, ids []ulid.ULID, err error) {
	switch {
	case s.format != "table" && s.format != "json":
		return "", nil, cli.Usagef("-format: %q is neither table nor json", s.format)
	case s.memory <= 0:
		return "", nil, cli.Usagef("-max-memory-bytes is not positive")
	case s.keep < 0:
		return "", nil, cli.Usagef("-keep is negative")
	case len(args) == 0:
		return "", nil, cli.Usagef("give one tenant")
	case s.accept && (!s.apply || len(args) == 1):
		return "", nil, cli.Usagef("-accept-loss goes with -apply and with the ULIDs of the blocks")
	}
	if err := tenant.ValidateID(args[0]); err != nil {
		return "", nil, cli.Usagef("%w", err)
	}
	for _, text := range args[1:] {
		id, err := ulid.ParseStrict(text)
		if err != nil {
			return "", nil, cli.Usagef("%q is no ULID: %w", text, err)
		}
		ids = append(ids, id)
	}
	return args[0], ids, nil
}

// command is one run.
type command struct {
	settings
	env       cli.Env
	bkt       *backend.Store
	manifests *manifest.Owner
	tenant    string
	lossy     int
}

func (c *command) run(ctx context.Context, ids []ulid.ULID) error {
	m, err := c.manifests.Refresh(ctx, c.tenant)
	if err != nil {
		return err
	}
	if m.Version == 0 {
		return fmt.Errorf("tenant %s has no manifest in %s", c.tenant, c.bkt.Name())
	}
	if len(ids) == 0 {
		for i := range m.Blocks {
			ids = append(ids, m.Blocks[i].ULID)
		}
	}
	damaged := 0
	for _, id := range ids {
		m, err := c.manifests.Current(ctx, c.tenant) // an earlier block of this run may have changed it
		if err != nil {
			return err
		}
		b, ok := m.Find(id)
		if !ok {
			return fmt.Errorf("block %s is not in the manifest of tenant %s", id, c.tenant)
		}
		cause, err := c.fault(ctx, b)
		if err != nil {
			return err
		}
		if cause == "" {
			continue
		}
		damaged++
		if err := c.one(ctx, m, b, cause); err != nil {
			return err
		}
	}
	if c.format != "json" {
		if _, err := fmt.Fprintf(c.env.Stdout, "%d of %d blocks are damaged\n", damaged, len(ids)); err != nil {
			return err
		}
	}
	if c.lossy > 0 {
		return cli.Wrong(fmt.Errorf("samples of %d blocks are lost", c.lossy))
	}
	return nil
}

// fault returns what is wrong with a block, empty when it is sound.
func (c *command) fault(ctx context.Context, b *manifest.Block) (string, error) {
	faults, sum, err := blockcheck.Gather(ctx, blockcheck.InBucket(c.bkt, c.tenant, b.ULID), b.ULID, 1)
	if err != nil {
		return "", err
	}
	if len(faults) == 0 && sum.Meta != nil {
		faults = blockcheck.CompareEntry(sum.Meta, sum.MetaBytes, *b)
	}
	if len(faults) == 0 {
		return "", nil
	}
	return faults[0].String(), nil
}

// one salvages one block.
func (c *command) one(ctx context.Context, m *manifest.Manifest, b *manifest.Block, cause string) error {
	cfg, now := salvage.Config{Scratch: c.scratch, Keep: c.keep, MaxMemoryBytes: c.memory}, time.Now()
	origins, err := salvage.FindOrigins(ctx, c.bkt, m, b, now.UnixMilli())
	if err != nil {
		return err
	}
	res, err := salvage.Run(ctx, cfg, c.bkt, salvage.Request{
		Tenant: c.tenant, Damaged: *b, Others: salvage.Neighbours(m, b), Origins: origins, AcceptLoss: c.accept,
		Writer: manifest.CompactorWriter + "duramenctl", ULID: ulid.Make(), Cause: cause, Dry: !c.apply, Now: now,
	})
	if errors.Is(err, salvage.ErrNothingThere) {
		c.lossy++
		_, err := fmt.Fprintf(c.env.Stderr, "%s/%s: nothing of it is in the bucket: bring it back from a backup, or give it up with "+
			"-accept-loss and its ULID\n", c.tenant, b.ULID)
		return err
	}
	if err != nil {
		return err
	}
	if c.apply {
		if err := salvage.Commit(ctx, cfg, c.bkt, c.manifests, res); err != nil {
			return err
		}
	}
	if !res.Report.Lossless {
		c.lossy++
	}
	return c.tell(res)
}

// tell writes the report.
func (c *command) tell(res *salvage.Result) error {
	if c.format == "json" {
		return json.NewEncoder(c.env.Stdout).Encode(res.Report)
	}
	r := res.Report
	var out strings.Builder
	name := r.Tenant + "/" + r.Block.ULID.String()
	for _, f := range r.Files {
		for _, x := range f.Faults {
			fmt.Fprintf(&out, "%s/%s\n", name, blockcheck.Fault{File: f.File, Offset: x.Offset, Series: x.Series, Text: x.Text})
		}
		if f.More > 0 {
			fmt.Fprintf(&out, "%s/%s: %d more faults\n", name, f.File, f.More)
		}
	}
	fmt.Fprintf(&out, "%s: readable are %d of %d series, %d of %d chunks, %d of %d samples\n", name,
		r.Recovered.Series, r.Block.Series, r.Recovered.Chunks, r.Block.Chunks, r.Recovered.Samples, r.Block.Samples)
	if r.Covered.Chunks > 0 {
		fmt.Fprintf(&out, "%s: other blocks hold %d chunks with %d samples that cannot be read here: %s\n", name,
			r.Covered.Chunks, r.Covered.Samples, strings.Join(r.CoveredBy, ", "))
	}
	if len(r.RestoredFrom) > 0 {
		fmt.Fprintf(&out, "%s: %s\n", name, c.restored(r))
	}
	if r.Lossless {
		fmt.Fprintf(&out, "%s: nothing is lost\n", name)
	} else {
		atLeast := "at least "
		if r.SamplesExact {
			atLeast = ""
		}
		fmt.Fprintf(&out, "%s: lost are %s%d samples in %d chunks; of %d series nothing is left\n", name, atLeast,
			r.Lost.Samples, r.Lost.Chunks, r.Lost.Series)
		for _, x := range r.Ranges {
			fmt.Fprintf(&out, "%s: lost between %s and %s\n", name, date(x.MinTime), date(x.MaxTime))
		}
		for _, x := range r.LostSeries[:min(len(r.LostSeries), maxShown)] {
			fmt.Fprintf(&out, "%s: lost %d chunks of %s\n", name, x.Chunks, x.Series)
		}
		if more := len(r.LostSeries) - maxShown + r.Unnamed; more > r.Unnamed {
			fmt.Fprintf(&out, "%s: and of %d more series\n", name, more)
		}
	}
	fmt.Fprintf(&out, "%s: %s\n", name, c.outcome(res))
	_, err := fmt.Fprint(c.env.Stdout, out.String())
	return err
}

// restored says what comes from the blocks that the damaged one was made of.
func (c *command) restored(r *salvage.Report) string {
	from := strings.Join(r.RestoredFrom, ", ")
	if !c.apply {
		return "blocks that it was made of are still there, and would give back what they have: " + from
	}
	return fmt.Sprintf("%d samples are from blocks that it was made of: %s", r.Restored, from)
}

// maxShown is how many lost series are named.
const maxShown = 20

// outcome says what was done, or would be.
func (c *command) outcome(res *salvage.Result) string {
	done := slices.Index([]bool{true, false}, c.apply)
	switch {
	case res.Healed:
		return []string{"meta.json was written again", "nothing was written: with -apply, meta.json would be"}[done]
	case res.Empty:
		return []string{"the block left the manifest", "nothing was written: with -apply, the block would leave the manifest"}[done]
	default:
		return []string{
			"block " + res.Block.ULID.String() + " takes its place", "nothing was written: with -apply, a new block takes its place",
		}[done]
	}
}

func date(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05.000") }
