package blocks

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockcheck"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/cmd/duramenctl/store"
	"github.com/duramendb/duramen/internal/cli"
)

// checkSettings are the flags of check.
type checkSettings struct {
	settings
	shallow, unlisted bool
	show              int
}

func checkCommand() cli.Command {
	var s checkSettings
	return cli.Command{
		Name: "check", Args: "[flags] [TENANT [ULID...]]", Summary: "read blocks to the last byte and name everything that is wrong",
		Long: `All blocks that the manifests list are read: every checksum is compared, every sample decoded, and index, chunks,
sidecar, meta.json and manifest are held against one another. Each fault is a line with file, offset and series; a fault does not
end the check. At most some 60 MiB of memory are used. Blocks that a tenant's manifest does not list are named and counted:
they are being uploaded, were left over, or are another program's.

` + store.Help + `

Exit codes: 0 all is sound; 1 the bucket cannot be read, or has neither manifests nor blocks; 2 wrong usage; 3 checked, and
something is wrong: a fault, a damaged manifest, a tenant that has blocks and no manifest.`,
		Example: `duramenctl blocks check -bucket=./data/bucket
duramenctl blocks check -bucket='s3://metrics/?endpoint=minio:9000&insecure=true' team-a
duramenctl blocks check -bucket=./data/bucket -shallow
duramenctl blocks check -bucket=./data/bucket team-a 01KAH2V5X4S3P8Y4QW4Q5B6Z7C`,
		Flags: func(f *flag.FlagSet) {
			s.registerFlags(f)
			f.BoolVar(&s.shallow, "shallow", false, "Compare manifest, meta.json and sizes only, without index and chunks.")
			f.BoolVar(&s.unlisted, "unlisted", false, "Check blocks too that no manifest lists. One that is being uploaded looks wrong.")
			f.IntVar(&s.show, "show", 20, "How many faults of one block are shown; all are counted.")
		},
		Run: func(ctx context.Context, env cli.Env, args []string) (err error) {
			named, ids, err := arguments(args)
			if err == nil {
				err = s.validate()
			}
			if err != nil {
				return err
			}
			p, err := s.open(env)
			if err != nil {
				return err
			}
			defer store.Close(p.bkt, &err)
			c := &checker{place: p, env: env, s: s}
			return c.run(ctx, named, ids)
		},
	}
}

// checker is one run of the command.
type checker struct {
	*place
	env      cli.Env
	s        checkSettings
	progress *cli.Progress

	found               bool  // a tenant has a manifest or blocks
	left                []job // blocks in no manifest, which are not checked
	blocks, bad, faults int
	bytes               int64
	wrong               []error
}

// job is one block to check.
type job struct {
	tenant string
	id     ulid.ULID
	inv    *blockcheck.Inventory
}

func (c *checker) run(ctx context.Context, named string, ids []ulid.ULID) error {
	tenants, err := c.tenants(ctx, named)
	if err != nil {
		return err
	}
	var jobs []job
	total := int64(0)
	for _, id := range tenants {
		inv, err := blockcheck.Take(ctx, c.bkt, c.manifests, id)
		if inv == nil {
			return err
		}
		c.judge(id, inv, err)
		if len(ids) == 0 {
			c.leave(id, inv)
		}
		for _, b := range c.choose(inv, ids) {
			jobs = append(jobs, job{id, b, inv})
			if o := inv.Blocks[b]; o != nil {
				total += o.Bytes
			}
		}
	}
	if !c.found {
		return c.nothing(named)
	}
	if c.s.shallow {
		total = 0
	}
	c.progress = cli.NewProgress(c.env, "check", total, "bytes")
	for _, j := range jobs {
		if err := c.one(ctx, j); err != nil {
			return err
		}
	}
	c.progress.Done()
	for _, j := range c.left {
		if err := c.tellLeft(j); err != nil {
			return err
		}
	}
	return c.end(len(tenants))
}

// judge looks at what a tenant has at all. err is that of its manifest.
func (c *checker) judge(id string, inv *blockcheck.Inventory, err error) {
	if err == nil && inv.Manifest.Version == 0 && len(inv.Blocks) > 0 {
		err = fmt.Errorf("tenant %s has %d blocks in the bucket and no manifest", id, len(inv.Blocks))
	}
	if err != nil {
		c.wrong = append(c.wrong, err)
	}
	c.found = c.found || err != nil || inv.Manifest.Version > 0
}

// leave remembers the blocks of a tenant that its manifest does not list, unless they are to be checked, too.
func (c *checker) leave(id string, inv *blockcheck.Inventory) {
	if c.s.unlisted || inv.Manifest.Version == 0 {
		return
	}
	for _, b := range inv.Unlisted() {
		c.left = append(c.left, job{id, b, inv})
	}
}

// nothing is the error of a check that has found neither a manifest nor a block.
func (c *checker) nothing(named string) error {
	if named != "" {
		return fmt.Errorf("tenant %s has neither a manifest nor blocks in %s", named, c.bkt.Name())
	}
	return store.NoBucket(c.bkt.Name())
}

// choose returns the blocks of a tenant that are to be checked.
func (c *checker) choose(inv *blockcheck.Inventory, ids []ulid.ULID) []ulid.ULID {
	if len(ids) > 0 {
		return ids
	}
	for _, b := range inv.Manifest.Blocks {
		ids = append(ids, b.ULID)
	}
	if c.s.unlisted {
		ids = append(ids, inv.Unlisted()...)
	}
	return ids
}

// report is what is said of one block.
type report struct {
	Tenant  string             `json:"tenant"`
	Block   ulid.ULID          `json:"block"`
	Listed  bool               `json:"listed"`
	Left    bool               `json:"not_checked,omitempty"`
	Faults  []blockcheck.Fault `json:"faults"`
	Count   int                `json:"fault_count"`
	Series  uint64             `json:"series"`
	Samples uint64             `json:"samples"`
	Bytes   int64              `json:"bytes"`
	Others  []string           `json:"other_files,omitempty"`
	// NoSidecar is no fault: the first query has it built.
	NoSidecar bool `json:"no_sidecar,omitempty"`
}

func (r *report) add(limit int, f blockcheck.Fault) {
	r.Count++
	if len(r.Faults) < limit {
		r.Faults = append(r.Faults, f)
	}
}

// one checks one block.
func (c *checker) one(ctx context.Context, j job) error {
	entry, isListed := j.inv.Manifest.Find(j.id)
	r := &report{Tenant: j.tenant, Block: j.id, Listed: isListed, Faults: []blockcheck.Fault{}}
	add := func(f blockcheck.Fault) { r.add(c.s.show, f) }
	if j.inv.Blocks[j.id] == nil {
		if gone, err := c.gone(ctx, j); gone || err != nil {
			return err
		}
		add(blockcheck.Fault{File: "block", Offset: -1, Text: "it has no objects in the bucket"})
		return c.tell(r)
	}
	before := c.bytes
	o := blockcheck.Options{Shallow: c.s.shallow, Read: func(n int64) { c.progress.Add(n) }}
	sum, err := blockcheck.Check(ctx, blockcheck.InBucket(c.bkt, j.tenant, j.id), j.id, o, add)
	if errors.Is(err, bucket.ErrNotFound) { // an object that was listed is not there any more
		gone, goneErr := c.gone(ctx, j)
		if gone || goneErr != nil {
			return goneErr
		}
		add(blockcheck.Fault{File: "block", Offset: -1, Text: "an object vanished while it was read"})
		err = nil
	}
	if err != nil {
		return err
	}
	if isListed && sum.Meta != nil {
		for _, f := range blockcheck.CompareEntry(sum.Meta, sum.MetaBytes, *entry) {
			add(f)
		}
		for _, f := range blockcheck.CompareSidecar(sum, *entry) {
			add(f)
		}
	}
	_, hasSidecar := sum.Files[block.SidecarName]
	r.NoSidecar = !hasSidecar
	r.Series, r.Samples, r.Bytes, r.Others = sum.Series, sum.Samples(), sum.Bytes, sum.Others
	slices.Sort(r.Others)
	c.bytes += sum.Bytes
	if !c.s.shallow {
		c.progress.Set(before + sum.Bytes)
	}
	return c.tell(r)
}

// gone reports whether a block without objects is one that was removed meanwhile.
func (c *checker) gone(ctx context.Context, j job) (bool, error) {
	if _, wasListed := j.inv.Manifest.Find(j.id); !wasListed {
		return false, nil
	}
	m, err := c.manifests.Refresh(ctx, j.tenant)
	if err != nil {
		return false, err
	}
	_, isListed := m.Find(j.id)
	return !isListed, nil
}

// tell writes what is said of one block.
func (c *checker) tell(r *report) error {
	c.progress.Clear()
	c.blocks++
	c.faults += r.Count
	if r.Count > 0 {
		c.bad++
	}
	if c.s.format == "json" {
		return json.NewEncoder(c.env.Stdout).Encode(r)
	}
	name := r.Tenant + "/" + r.Block.String()
	var err error
	say := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(c.env.Stdout, format, args...)
		}
	}
	for _, f := range r.Faults {
		say("%s/%s\n", name, f)
	}
	if more := r.Count - len(r.Faults); more > 0 {
		say("%s: %d more faults\n", name, more)
	}
	verdict := "sound"
	if r.Count > 0 {
		verdict = fmt.Sprintf("%d faults", r.Count)
	}
	if !r.Listed {
		verdict += ", in no manifest"
	}
	if r.NoSidecar {
		verdict += ", no sidecar yet"
	}
	if c.s.shallow {
		say("%s: %s, %s, not read\n", name, verdict, cli.Bytes(r.Bytes))
		return err
	}
	say("%s: %s, %d series, %d samples, %s\n", name, verdict, r.Series, r.Samples, cli.Bytes(r.Bytes))
	return err
}

// tellLeft names one block that was not checked.
func (c *checker) tellLeft(j job) error {
	size := j.inv.Blocks[j.id].Bytes
	if c.s.format == "json" {
		r := &report{Tenant: j.tenant, Block: j.id, Left: true, Faults: []blockcheck.Fault{}, Bytes: size}
		return json.NewEncoder(c.env.Stdout).Encode(r)
	}
	why := "in no manifest"
	if j.inv.Removed(j.id) {
		why = "removed from the manifest"
	}
	_, err := fmt.Fprintf(c.env.Stdout, "%s/%s: %s, not checked, %s\n", j.tenant, j.id, why, cli.Bytes(size))
	return err
}

// end writes the last line and gives the verdict.
func (c *checker) end(tenants int) error {
	if c.s.format != "json" {
		left := ""
		if len(c.left) > 0 {
			left = fmt.Sprintf("; %d blocks in no manifest were not checked", len(c.left))
		}
		_, err := fmt.Fprintf(c.env.Stdout, "%d blocks of %d tenants, %s: %d faults in %d blocks%s\n",
			c.blocks, tenants, cli.Bytes(c.bytes), c.faults, c.bad, left)
		if err != nil {
			return err
		}
	}
	if c.bad > 0 {
		c.wrong = append(c.wrong, fmt.Errorf("%d of %d blocks have faults", c.bad, c.blocks))
	}
	return join(c.wrong)
}
