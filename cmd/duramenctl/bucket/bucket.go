// Package bucket is the group of commands that work on whole buckets. It holds flags and words only; package
// chunkstore/bucketcopy does the work and refuses what must not be done. Read that package next.
package bucket

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	objects "github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/backend"
	"github.com/duramendb/duramen/chunkstore/bucket/identity"
	"github.com/duramendb/duramen/chunkstore/bucketcopy"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/cmd/duramenctl/store"
	"github.com/duramendb/duramen/internal/cli"
	"github.com/duramendb/duramen/tenant"
)

// Command returns the group.
func Command() cli.Command {
	return cli.Command{
		Name: "bucket", Summary: "copy a bucket, between disks and S3 servers",
		Example:  "duramenctl bucket copy -from=./data/bucket -to='s3://metrics/?endpoint=minio:9000&insecure=true'",
		Commands: []cli.Command{copyCommand()},
	}
}

// maxParallel bounds the connections and buffers of a copy.
const maxParallel = 64

// settings are the flags of copy.
type settings struct {
	from, to                                  string
	verify                                    string
	parallel                                  int
	dryRun, replaceDiverged, acceptIncomplete bool
}

func (s *settings) registerFlags(f *flag.FlagSet) {
	f.StringVar(&s.from, "from", "", "The `bucket` to copy from: a directory or an s3:// URL.")
	f.StringVar(&s.to, "to", "", "The `bucket` to copy to. A directory is made when it is missing, an S3 bucket has to exist.")
	f.StringVar(&s.verify, "verify", "sent", "What is compared beside sizes: \"sent\" reads back each object that was sent; \"all\" reads also "+
		"what was there\nbefore, in both buckets; \"sizes\" reads nothing back.")
	f.IntVar(&s.parallel, "parallel", 4, "How many blocks are copied at the same time.")
	f.BoolVar(&s.dryRun, "dry-run", false, "Say what would be sent, and send nothing.")
	f.BoolVar(&s.replaceDiverged, "replace-diverged", false, "Let the source win over a destination that has a history of its own. What only the "+
		"destination has is\nnot queried any more. Stop whatever writes there first.")
	f.BoolVar(&s.acceptIncomplete, "accept-incomplete", false, "Copy a tenant's manifest although blocks that it lists lack objects in the source.")
}

func copyCommand() cli.Command {
	var s settings
	return cli.Command{
		Name: "copy", Args: "-from=BUCKET -to=BUCKET [flags] [TENANT...]",
		Summary: "copy all tenants, or some, from one bucket to another",
		Long: `Blocks that the newest manifest of a tenant lists are copied: chunks, index, meta.json, and the manifest when all
of them are there. At no moment does the destination name what it has not. Run it again after an interruption, or to bring
over what is new: what is there in its size is not sent again. The source may be written to meanwhile; what comes later
needs another run. Objects of no listed block are left behind. When all tenants were copied, the copy gets the identity of
the source, unless it has one: nodes of the source start on it.

` + store.Help + ` One set of keys serves both buckets; for two, name a credentials_file or a profile in the URLs.

Exit codes: 0 copied; 1 a bucket cannot be read or written, run it again, or there is nothing to copy: a tenant that is
named, or all of them, have no manifest in the source; 2 wrong usage; 3 a tenant was not copied to its end, because the
destination has a history of its own, a manifest is damaged or missing beside blocks, or a block is not whole or not equal.`,
		Example: `duramenctl bucket copy -from=./data/bucket -to=/mnt/backup/bucket
AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… \
  duramenctl bucket copy -from=./data/bucket -to='s3://metrics/?endpoint=minio:9000&insecure=true'
duramenctl bucket copy -from=./data/bucket -to=/mnt/backup/bucket -dry-run team-a team-b
duramenctl bucket copy -from=./data/bucket -to=/mnt/backup/bucket -verify=all`,
		Flags: s.registerFlags,
		Run:   func(ctx context.Context, env cli.Env, args []string) error { return run(ctx, env, s, args) },
	}
}

func (s *settings) options() (bucketcopy.Options, error) {
	o := bucketcopy.Options{
		Parallel: s.parallel, DryRun: s.dryRun, ReplaceDiverged: s.replaceDiverged, AcceptIncomplete: s.acceptIncomplete,
	}
	switch s.verify {
	case "sent":
		o.Verify = bucketcopy.VerifySent
	case "sizes":
		o.Verify = bucketcopy.VerifySizes
	case "all":
		o.Verify = bucketcopy.VerifyAll
	default:
		return o, cli.Usagef("-verify: %q is none of sent, sizes and all", s.verify)
	}
	if s.parallel < 1 || s.parallel > maxParallel {
		return o, cli.Usagef("-parallel: %d is not 1 to %d", s.parallel, maxParallel)
	}
	if s.from == "" || s.to == "" {
		return o, cli.Usagef("give -from and -to")
	}
	return o, apart(s.from, s.to)
}

// directory returns where a bucket on a disk is, with links followed.
func directory(text string) (dir string, ok bool) {
	cfg, err := backend.ParseURL(text)
	if err != nil || cfg.Backend != backend.Filesystem {
		return "", false
	}
	dir = cfg.Filesystem.Directory
	if real, err := filepath.EvalSymlinks(dir); err == nil { // before Abs, which takes ".." behind a link for its way back
		dir = real
	}
	abs, err := filepath.Abs(dir)
	return resolved(abs), err == nil
}

// resolved follows the links in an absolute path as far as it exists.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	return filepath.Join(resolved(parent), filepath.Base(path))
}

// within reports whether a directory is another one or lies in it.
func within(dir, other string) bool {
	rel, err := filepath.Rel(other, dir)
	return err == nil && filepath.IsLocal(rel)
}

// apart refuses two words that name one bucket, or one in the other, as far as words tell.
func apart(from, to string) error {
	if from == to {
		return cli.Usagef("-from and -to are one bucket")
	}
	src, ok := directory(from)
	dst, both := directory(to)
	switch {
	case !ok || !both:
		return nil
	case src == dst:
		return cli.Usagef("-from and -to are one bucket")
	case within(dst, src):
		return cli.Usagef("-to lies in -from: the copy would be a tenant or a block of what is copied")
	case within(src, dst):
		return cli.Usagef("-from lies in -to: what is copied would be a tenant or a block of the copy")
	}
	return nil
}

func run(ctx context.Context, env cli.Env, s settings, tenants []string) (err error) {
	o, err := s.options()
	if err != nil {
		return err
	}
	for _, id := range tenants {
		if err := tenant.ValidateID(id); err != nil {
			return cli.Usagef("%w", err)
		}
	}
	src, err := store.Open(env, s.from, false)
	if err != nil {
		return fmt.Errorf("-from: %w", err)
	}
	defer store.Close(src, &err)
	dst, err := openDestination(env, s)
	if err != nil {
		return fmt.Errorf("-to: %w", err)
	}
	defer store.Close(dst, &err)
	c := &copying{env: env, src: src, dst: dst, o: o, named: len(tenants) > 0}
	if !c.named {
		owner := manifest.NewOwner(src, time.Now, slog.New(slog.DiscardHandler), nil)
		if tenants, err = owner.Tenants(ctx); err != nil {
			return fmt.Errorf("-from: %w", err)
		}
	}
	return c.all(ctx, tenants)
}

// destination is a bucket that can be closed.
type destination interface {
	objects.Bucket
	io.Closer
}

// openDestination opens the bucket to copy to. A directory is made when it is missing; for a dry run it counts as empty.
func openDestination(env cli.Env, s settings) (destination, error) {
	dst, err := store.Open(env, s.to, !s.dryRun)
	if s.dryRun && errors.Is(err, fs.ErrNotExist) {
		return nowhere{objects.NewInMemory()}, nil
	}
	return dst, err
}

// nowhere is an empty bucket.
type nowhere struct{ *objects.InMemory }

// Close implements io.Closer.
func (nowhere) Close() error { return nil }

// copying is one run of copy.
type copying struct {
	env      cli.Env
	src, dst objects.Bucket
	o        bucketcopy.Options
	// named says that the tenants were named, and not found in the source.
	named bool

	found   bool    // a tenant has a manifest in the source
	wrong   []error // what the buckets hold keeps a tenant from being copied
	missing []error // there is nothing to copy
}

// all copies one tenant after another. One that cannot be copied to its end keeps no other from it.
func (c *copying) all(ctx context.Context, tenants []string) error {
	for _, id := range tenants {
		plan, err := c.tenant(ctx, id)
		c.found = c.found || plan.From > 0 || errors.Is(err, bucketcopy.ErrManifest)
		if notCopied(err) && ctx.Err() == nil {
			c.wrong = append(c.wrong, err)
			continue
		}
		if err != nil {
			return errors.Join(append(c.wrong, fmt.Errorf("%w (run it again to go on)", err))...)
		}
		if err := c.tell(plan); err != nil {
			return err
		}
	}
	if err := c.identity(ctx); err != nil {
		return err
	}
	return c.end()
}

// identity lets the copy of a whole bucket pass for it, when all of it is there.
func (c *copying) identity(ctx context.Context) error {
	if c.named || c.o.DryRun || !c.found || len(c.wrong) > 0 {
		return nil
	}
	from, to, err := identity.Copy(ctx, c.src, c.dst)
	if err != nil {
		return fmt.Errorf("copy the identity of the bucket: %w (run it again to go on)", err)
	}
	if from != "" && to != from {
		_, err = fmt.Fprintf(c.env.Stdout, "the destination keeps its own identity, %s: a node of the source starts on it with "+
			"bucket.accept_new_identity=%s\n", to, from)
	}
	return err
}

// tenant copies one tenant and shows how far it is.
func (c *copying) tenant(ctx context.Context, id string) (bucketcopy.Plan, error) {
	var progress *cli.Progress
	o := c.o
	o.Planned = func(p bucketcopy.Plan) {
		if progress != nil { // it begins again, for the source has changed
			progress.Done()
		}
		total := p.Bytes
		if o.Verify == bucketcopy.VerifyAll {
			total += p.ThereBytes
		}
		progress = cli.NewProgress(c.env, "copy "+id, total, "bytes")
	}
	o.Went = func(n int64) { progress.Add(n) }
	plan, err := bucketcopy.New(c.src, c.dst, o).Tenant(ctx, id)
	if progress != nil && !o.DryRun && (plan.Bytes > 0 || o.Verify == bucketcopy.VerifyAll) {
		progress.Done()
	}
	return plan, err
}

// tell writes the line of a tenant, unless its lack of a manifest is an error.
func (c *copying) tell(p bucketcopy.Plan) error {
	switch {
	case p.From == 0 && p.Unlisted > 0:
		c.wrong = append(c.wrong, fmt.Errorf("tenant %s has %d blocks and no manifest in %s: nothing of it is copied",
			p.Tenant, p.Unlisted, c.src.Name()))
		return nil
	case p.From == 0 && c.named:
		c.missing = append(c.missing, fmt.Errorf("tenant %s has no manifest in %s", p.Tenant, c.src.Name()))
		return nil
	}
	_, err := fmt.Fprint(c.env.Stdout, verdict(p, c.o.DryRun))
	return err
}

// end gives the verdict. That something was not there to be copied outweighs what was there and is wrong.
func (c *copying) end() error {
	if !c.named && !c.found {
		c.missing = append(c.missing, store.NoBucket(c.src.Name()))
	}
	if len(c.missing) > 0 {
		return errors.Join(append(c.wrong, c.missing...)...)
	}
	return cli.Wrong(errors.Join(c.wrong...))
}

// notCopied reports whether an error is about what the buckets hold, and not about reaching them.
func notCopied(err error) bool {
	return errors.Is(err, bucketcopy.ErrDiverged) || errors.Is(err, bucketcopy.ErrManifest) ||
		errors.Is(err, bucketcopy.ErrIncomplete) || errors.Is(err, bucketcopy.ErrDiffers)
}

// verdict is the line of a tenant.
func verdict(p bucketcopy.Plan, dryRun bool) string {
	did := "copied"
	if dryRun {
		did = "would copy"
	}
	var b strings.Builder
	if p.From == 0 {
		fmt.Fprintf(&b, "%s: has no manifest, nothing %s", p.Tenant, strings.TrimPrefix(did, "would "))
	} else {
		fmt.Fprintf(&b, "%s: %s version %d with %d blocks: %d objects, %s; %d objects, %s, were there",
			p.Tenant, did, p.From, p.Blocks, p.Objects, cli.Bytes(p.Bytes), p.ThereObjects, cli.Bytes(p.ThereBytes))
	}
	if p.Unlisted > 0 {
		fmt.Fprintf(&b, "; %d blocks that no manifest lists are left behind", p.Unlisted)
	}
	return b.String() + "\n"
}
