package compactor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor/salvage"
)

// salvagers is package salvage.
type salvagers struct {
	cfg       salvage.Config
	bkt       bucket.Bucket
	manifests *manifest.Owner
	writer    string
	now       func() time.Time
	log       *slog.Logger
}

// salvaging are the settings of package salvage. Its files lie beside those of merges.
func (c *Config) salvaging() salvage.Config {
	return salvage.Config{Scratch: filepath.Join(c.Dir, "salvage"), Keep: c.KeepDamaged}
}

// Salvage implements Salvager. That somebody else has dealt with the block is a success.
func (s salvagers) Salvage(ctx context.Context, m *manifest.Manifest, damaged manifest.Block, cause error) error {
	now := s.now()
	id, err := ulid.New(ulid.Timestamp(now), ulid.DefaultEntropy())
	if err != nil {
		return fmt.Errorf("name the new block: %w", err)
	}
	res, err := salvage.Run(ctx, s.cfg, s.bkt, salvage.Request{
		Tenant: m.Tenant, Damaged: damaged, Others: salvage.Neighbours(m, &damaged), Writer: s.writer, ULID: id,
		Cause: cause.Error(), Now: now,
	})
	if err != nil {
		return err
	}
	err = salvage.Commit(ctx, s.cfg, s.bkt, s.manifests, res)
	if errors.Is(err, manifest.ErrConflict) {
		s.log.Info("damaged block left the manifest meanwhile", "tenant", m.Tenant, "block", damaged.ULID, "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	s.tell(ctx, res)
	return nil
}

// tell writes what became of a block to the log.
func (s salvagers) tell(ctx context.Context, res *salvage.Result) {
	r := res.Report
	level, text := slog.LevelError, "damaged block was salvaged in part, samples are lost"
	switch {
	case res.Healed:
		level, text = slog.LevelInfo, "meta.json of a block was written again, nothing is lost"
	case r.Lossless:
		level, text = slog.LevelWarn, "damaged block was salvaged, nothing is lost"
	case res.Empty:
		text = "nothing of a damaged block is readable, and it left the manifest"
	}
	s.log.Log(ctx, level, text, "tenant", r.Tenant, "block", r.Block.ULID, "new_block", r.NewBlock,
		"lost_series", r.Lost.Series, "lost_chunks", r.Lost.Chunks, "lost_samples", r.Lost.Samples,
		"covered_chunks", r.Covered.Chunks, "report", salvage.ReportKey(r.Tenant, r.Block.ULID))
}

// Damage knows which listed blocks miss objects: the reconciler, which lists what there is.
type Damage interface {
	Damaged(tenantID string) map[ulid.ULID]string
}

// WatchDamage has the compactor look at the blocks that d names. It is called before the service starts.
func (c *Compactor) WatchDamage(d Damage) { c.damage = d }

// damageTime is how long a block that misses objects, and not only meta.json, is not looked at again.
const damageTime = time.Hour

// heal writes the meta.json of listed blocks again that is missing while all else is there. What else is wrong with a block
// is left to the merge that meets it.
func (c *Compactor) heal(ctx context.Context, m *manifest.Manifest) {
	if c.damage == nil {
		return
	}
	for id := range c.damage.Damaged(m.Tenant) {
		b, listed := m.Find(id)
		if !listed || !c.mayLook(id) {
			continue
		}
		healed, err := salvage.HealMeta(ctx, c.bkt, m.Tenant, *b)
		switch {
		case err != nil && ctx.Err() == nil:
			c.log.Warn("meta.json of a block was not written again, trying again", "tenant", m.Tenant, "block", id,
				"again_in", damageTime, "err", err)
		case healed:
			c.log.Warn("meta.json of a block was missing and was written again", "tenant", m.Tenant, "block", id)
		}
	}
}

// mayLook reports whether a block was not looked at lately, and notes that it is now.
func (c *Compactor) mayLook(id ulid.ULID) bool {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.looked, func(_ ulid.ULID, at time.Time) bool { return now.Sub(at) >= damageTime })
	if _, lately := c.looked[id]; lately {
		return false
	}
	if c.looked == nil {
		c.looked = map[ulid.ULID]time.Time{}
	}
	c.looked[id] = now
	return true
}
