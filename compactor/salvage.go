package compactor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor/salvage"
	"github.com/duramendb/duramen/internal/errkind"
)

// Salvager deals with one damaged block: what is readable of it takes its place in the manifest, by a swap of its own, and
// what is not is reported. An error of kind Unavailable may pass, manifest.ErrConflict says that somebody else has dealt
// with the block; any other says that it cannot be dealt with.
type Salvager interface {
	Salvage(ctx context.Context, m *manifest.Manifest, damaged manifest.Block, cause error) error
}

// salvagers is package salvage.
type salvagers struct {
	cfg       salvage.Config
	writer    string
	bkt       bucket.Bucket
	manifests *manifest.Owner
	now       func() time.Time
	log       *slog.Logger
}

// Salvage implements Salvager.
func (s salvagers) Salvage(ctx context.Context, m *manifest.Manifest, damaged manifest.Block, cause error) error {
	id, err := newOutput(s.now())
	if err != nil {
		return err
	}
	now := s.now()
	origins, err := salvage.FindOrigins(ctx, s.bkt, m, &damaged, now.UnixMilli())
	if err != nil {
		return err
	}
	res, err := salvage.Run(ctx, s.cfg, s.bkt, salvage.Request{
		Tenant: m.Tenant, Damaged: damaged, Others: salvage.Neighbours(m, &damaged), Origins: origins, Writer: s.writer, ULID: id,
		Cause: cause.Error(), Now: now,
	})
	if err == nil {
		err = salvage.Commit(ctx, s.cfg, s.bkt, s.manifests, res)
	}
	if err != nil {
		return err
	}
	r, level := res.Report, slog.LevelWarn
	if !r.Lossless {
		level = slog.LevelError
	}
	s.log.Log(ctx, level, "damaged block replaced by what is readable of it", "tenant", m.Tenant, "block", damaged.ULID,
		"new_block", r.NewBlock, "lossless", r.Lossless, "recovered_samples", r.Recovered.Samples, "restored_samples", r.Restored,
		"covered_samples", r.Covered.Samples, "lost_samples", r.Lost.Samples, "lost_series", r.Lost.Series,
		"report", salvage.ReportKey(m.Tenant, damaged.ULID))
	return nil
}

func newOutput(now time.Time) (ulid.ULID, error) {
	id, err := ulid.New(ulid.Timestamp(now), ulid.DefaultEntropy())
	if err != nil {
		return id, fmt.Errorf("name the output: %w", err)
	}
	return id, nil
}

// mostSalvages is how often one block is salvaged that stays listed, because all of it could be read in the end.
const mostSalvages = 2

// treatDamage salvages an input that is damaged or gone, as cause says. One that cannot be is left out of plans, so that the
// others go on.
func (c *Compactor) treatDamage(ctx context.Context, a *activity, id ulid.ULID, cause error) error {
	if _, here := c.cluster.Owner(a.tenant.id); !here {
		return errMoved
	}
	m, err := c.manifests.Refresh(ctx, a.tenant.id)
	if err != nil {
		return err
	}
	if m.Deleting() {
		return errDoomed
	}
	for _, b := range m.Blocks {
		if b.ULID == id {
			return c.treatBlock(ctx, a.tenant, m, b, cause)
		}
	}
	return errStale // somebody else has dealt with it
}

func (c *Compactor) treatBlock(
	ctx context.Context, t *tenantState, m *manifest.Manifest, b manifest.Block, cause error,
) error {
	c.mu.Lock()
	t.salvaged[b.ULID]++
	again := t.salvaged[b.ULID] > mostSalvages
	c.mu.Unlock()
	if again {
		c.exclude(t, b.ULID, verdictTime, fmt.Sprintf("%v; it was salvaged %d times, in vain", cause, mostSalvages))
		return cause
	}
	c.log.Error("block is damaged, saving what is readable", "tenant", t.id, "block", b.ULID, "err", cause)
	err := c.salvage(ctx, m, b, cause)
	passes := ctx.Err() != nil || errkind.Of(err) == errkind.Unavailable
	if err != nil && (passes || errors.Is(err, salvage.ErrNothingThere)) {
		c.mu.Lock()
		t.salvaged[b.ULID]--
		c.mu.Unlock()
	}
	switch {
	case err == nil:
		c.metrics.salvages.WithLabelValues(salvageDone).Inc()
		return &salvagedError{cause}
	case errors.Is(err, manifest.ErrConflict):
		return err
	case passes:
		c.metrics.salvages.WithLabelValues(salvageFailed).Inc()
		return err
	case errors.Is(err, salvage.ErrNothingThere):
		c.exclude(t, b.ULID, goneTime, "listed and not in the bucket: bring its objects back from a backup, or give it up with "+
			"duramenctl salvage -apply -accept-loss; until then queries over it fail")
	default:
		c.exclude(t, b.ULID, verdictTime, fmt.Sprintf("%v; it could not be salvaged: %v", cause, err))
	}
	c.metrics.salvages.WithLabelValues(salvageImpossible).Inc()
	return cause
}

// salvage calls the salvager, whose panic is the failure of this block.
func (c *Compactor) salvage(ctx context.Context, m *manifest.Manifest, b manifest.Block, cause error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked("salvage panicked", m.Tenant, p)
		}
	}()
	return c.salvager.Salvage(ctx, m, b, cause)
}
