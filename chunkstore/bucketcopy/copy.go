package bucketcopy

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// Verify says how much is read again.
type Verify int

// The choices. Sizes are always compared.
const (
	// VerifySent reads back each object that was sent and compares its hash with that of the bytes that were sent.
	VerifySent Verify = iota
	// VerifySizes reads nothing back.
	VerifySizes
	// VerifyAll reads what was in the destination before, too, and compares it with the source.
	VerifyAll
)

// Options are the wishes of the caller. The zero value copies with one block at a time and reads back what it sends.
type Options struct {
	Verify Verify
	// Parallel is how many blocks are copied at the same time, at least 1.
	Parallel int
	// DryRun plans and sends nothing.
	DryRun bool
	// ReplaceDiverged lets the source win over a destination with a history of its own.
	ReplaceDiverged bool
	// AcceptIncomplete copies a manifest although blocks that it lists are not whole in the source.
	AcceptIncomplete bool

	// Planned is told what is to be done before it is done, Went of bytes that were sent or, with VerifyAll, compared. Both
	// may be nil. Went is called concurrently, and again for bytes that have to be sent again.
	Planned func(Plan)
	Went    func(n int64)
}

// Plan is what a tenant needs.
type Plan struct {
	Tenant string
	// From and To are the newest manifest versions of source and destination, 0 for none.
	From, To uint64
	Blocks   int
	// Objects and Bytes are to be sent, ThereObjects and ThereBytes are in the destination with their size.
	Objects      int
	Bytes        int64
	ThereObjects int
	ThereBytes   int64
	// Unlisted are blocks with objects in the source that its manifest does not list. They are not copied.
	Unlisted int
}

// Copier copies tenants from one bucket to another.
type Copier struct {
	src, dst bucket.Bucket
	o        Options
}

// New returns a copier. It asks neither bucket anything.
func New(src, dst bucket.Bucket, o Options) *Copier {
	o.Parallel = max(1, o.Parallel)
	if o.Planned == nil {
		o.Planned = func(Plan) {}
	}
	if o.Went == nil {
		o.Went = func(int64) {}
	}
	return &Copier{src: src, dst: dst, o: o}
}

// restarts is how often a tenant begins again because its source has changed. Blocks stay for hours after they left the
// manifest, so that even once is rare.
const restarts = 3

// Tenant copies one tenant. After an error, or when the process died, call it again: what is there is not sent again. In
// the destination everything was right at every moment in between, as it was before.
//
// ErrDiverged, ErrManifest, ErrIncomplete, ErrDiffers: see there; the last two are joined, one for each block. Any other
// error is that of a bucket, or of ctx.
func (c *Copier) Tenant(ctx context.Context, tenantID string) (plan Plan, err error) {
	for range restarts {
		if plan, err = c.once(ctx, tenantID); !errors.Is(err, errMoved) {
			break
		}
	}
	if err != nil {
		return plan, fmt.Errorf("copy tenant %s: %w", tenantID, err)
	}
	return plan, nil
}

func (c *Copier) once(ctx context.Context, tenantID string) (Plan, error) {
	h, err := c.histories(ctx, tenantID)
	plan := Plan{Tenant: tenantID, From: h.from.version(), To: h.to.version()}
	if err != nil {
		return plan, err
	}
	src, err := list(ctx, c.src, tenantID)
	if err != nil {
		return plan, err
	}
	if h.from == nil {
		plan.Unlisted = len(src)
		c.o.Planned(plan)
		return plan, nil
	}
	dst, err := list(ctx, c.dst, tenantID)
	if err != nil {
		return plan, err
	}
	jobs := make([]job, 0, len(h.from.Blocks))
	for _, b := range h.from.Blocks {
		j := job{tenant: tenantID, id: b.ULID, src: src[b.ULID], dst: dst[b.ULID]}
		plan.add(j)
		jobs = append(jobs, j)
	}
	for id := range src {
		if _, listed := h.from.Find(id); !listed {
			plan.Unlisted++
		}
	}
	if c.o.Planned(plan); c.o.DryRun {
		return plan, nil
	}
	if err := c.blocks(ctx, jobs); err != nil {
		return plan, err
	}
	return plan, c.manifests(ctx, tenantID, h)
}

// blocks copies all blocks. A block that is not as it should be keeps no other from being copied.
func (c *Copier) blocks(ctx context.Context, jobs []job) error {
	var (
		mu    sync.Mutex
		wrong []error
	)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.o.Parallel)
	for _, j := range jobs {
		g.Go(func() error {
			err := c.block(ctx, j)
			if err == nil {
				return nil
			}
			err = fmt.Errorf("block %s: %w", j.id, err)
			switch incomplete := errors.Is(err, ErrIncomplete); {
			case incomplete && c.o.AcceptIncomplete:
				return nil
			case incomplete || errors.Is(err, ErrDiffers):
				mu.Lock()
				defer mu.Unlock()
				wrong = append(wrong, err)
				return nil
			default:
				return err
			}
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return errors.Join(wrong...)
}

// add counts what one block needs.
func (p *Plan) add(j job) {
	p.Blocks++
	for name, size := range j.src {
		if have, ok := j.dst[name]; ok && have == size {
			p.ThereObjects++
			p.ThereBytes += size
			continue
		}
		p.Objects++
		p.Bytes += size
	}
}

// sizes are the objects of one block.
type sizes map[string]int64

// list returns the objects of all blocks of a tenant.
func list(ctx context.Context, bkt bucket.Bucket, tenantID string) (map[ulid.ULID]sizes, error) {
	found := map[ulid.ULID]sizes{}
	err := bkt.List(ctx, tenantID+"/", true, func(o bucket.Object) error {
		if id, name, ok := parse(o.Key); ok {
			if found[id] == nil {
				found[id] = sizes{}
			}
			found[id][name] = o.Size
		}
		return nil
	})
	return found, err
}

// stillListed reports whether the newest manifest of the source lists a block.
func (c *Copier) stillListed(ctx context.Context, tenantID string, id ulid.ULID) (bool, error) {
	v, err := newest(ctx, c.src, tenantID)
	if err != nil || v == nil {
		return false, err
	}
	_, ok := v.Find(id)
	return ok, nil
}

// version is one manifest version as it lies in a bucket.
type version struct {
	*manifest.Manifest
	raw []byte
}

// version returns the number of v, 0 when there is none.
func (v *version) version() uint64 {
	if v == nil {
		return 0
	}
	return v.Version
}
