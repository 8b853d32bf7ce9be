package tenantmark

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

const (
	// deleteBatch is how many objects one request deletes: what S3 takes.
	deleteBatch = 1000

	// sweeps is how often one purge lists a tenant anew because something has come meanwhile.
	sweeps = 4
)

// errBusy means that objects keep coming. It is of kind Unavailable: the next pass goes on.
var errBusy = errkind.New(errkind.Unavailable, "objects keep coming")

// Owner is what is needed of manifest.Owner.
type Owner interface {
	Refresh(ctx context.Context, tenantID string) (*manifest.Manifest, error)
	Doom(ctx context.Context, tenantID string, grace time.Duration) (manifest.TenantDeletion, error)
	Reprieve(ctx context.Context, tenantID string) error
	Raze(ctx context.Context, tenantID string) error
	FinishDoom(ctx context.Context, tenantID string) error
}

// Purge deletes everything of a tenant in the bucket but a receipt, when its time of grace is over by now: the newest
// version of its manifest, which says when it was finished and how much was deleted, and its mark, which says so to others.
// It may be cut off anywhere and called again, also by several at a time; of a tenant that is finished it deletes what came
// back. finished says whether there is nothing left to do. Errors are those of the bucket and of the manifest.
//
// The order: blocks leave the manifest, for good; then their meta.json, so that nobody takes the rest for a block; then
// everything else; then the manifest says that it is finished, the mark says it, and older versions go.
func Purge(
	ctx context.Context, bkt bucket.Bucket, owner Owner, tenantID string, now time.Time, log *slog.Logger,
) (finished bool, _ error) {
	m, err := owner.Refresh(ctx, tenantID)
	if err != nil {
		return false, err
	}
	p := purge{bkt: bkt, owner: owner, tenant: tenantID, log: log}
	switch {
	case m.Deleting() && now.UnixMilli() >= m.Doomed.GraceUntil:
		err = p.run(ctx, m)
	case m.Doomed != nil && m.Doomed.FinishedAt != 0:
	default:
		return false, nil
	}
	if err == nil {
		err = p.leaveReceipt(ctx)
	}
	if err != nil {
		return false, fmt.Errorf("delete tenant %s: %w", tenantID, err)
	}
	return true, nil
}

type purge struct {
	bkt    bucket.Bucket
	owner  Owner
	tenant string
	log    *slog.Logger
}

// run deletes all but manifests and has the manifest say so.
func (p *purge) run(ctx context.Context, m *manifest.Manifest) error {
	// The mark at the top keeps everybody away when the one in the folder goes.
	if err := Write(ctx, p.bkt, p.tenant, Of(*m.Doomed)); err != nil {
		return err
	}
	for range sweeps {
		if err := p.owner.Raze(ctx, p.tenant); err != nil {
			return err
		}
		n, err := p.sweep(ctx)
		if err != nil {
			return err
		}
		if n > 0 {
			p.log.Info("objects of deleted tenant deleted", "tenant", p.tenant, "objects", n)
			continue
		}
		err = p.owner.FinishDoom(ctx, p.tenant)
		if !errors.Is(err, manifest.ErrConflict) { // then an ingester has announced a block since
			return err
		}
	}
	return errBusy
}

// sweep deletes all objects but manifests once, and returns how many there were.
func (p *purge) sweep(ctx context.Context) (n int, _ error) {
	var metas, others []string
	err := p.bkt.List(ctx, p.tenant+"/", true, func(o bucket.Object) error {
		switch {
		case strings.HasPrefix(o.Key, manifest.Prefix(p.tenant)):
		case strings.HasSuffix(o.Key, "/meta.json"):
			metas = append(metas, o.Key)
		default:
			others = append(others, o.Key)
		}
		return nil
	})
	if err != nil {
		return 0, unavailable(err)
	}
	for _, keys := range [][]string{metas, others} {
		if err := p.delete(ctx, keys); err != nil {
			return n, err
		}
		n += len(keys)
	}
	return n, nil
}

func (p *purge) delete(ctx context.Context, keys []string) error {
	for len(keys) > 0 {
		batch := keys[:min(deleteBatch, len(keys))]
		if err := p.bkt.Delete(ctx, batch...); err != nil {
			return unavailable(err)
		}
		keys = keys[len(batch):]
	}
	return nil
}

// leaveReceipt has the mark say that the tenant is finished, and deletes all versions of its manifest but the newest.
func (p *purge) leaveReceipt(ctx context.Context) error {
	m, err := p.owner.Refresh(ctx, p.tenant)
	if err != nil || m.Doomed == nil || m.Doomed.FinishedAt == 0 {
		return err // somebody has asked for it anew meanwhile
	}
	mark, found, err := get(ctx, p.bkt, Key(p.tenant))
	if err != nil {
		return err
	}
	if !found || mark.FinishedAt() != m.Doomed.FinishedAt {
		if err := Write(ctx, p.bkt, p.tenant, Of(*m.Doomed)); err != nil {
			return err
		}
		p.log.Info("tenant deleted", "tenant", p.tenant, "blocks", m.Doomed.Blocks, "bytes", m.Doomed.Bytes)
	}
	if len(m.Blocks) > 0 {
		return nil // it has begun anew, and its versions are kept as anybody's
	}
	var old []string
	err = p.bkt.List(ctx, manifest.Prefix(p.tenant), false, func(o bucket.Object) error {
		if version, ok := manifest.ParseKey(p.tenant, o.Key); ok && version < m.Version {
			old = append(old, o.Key)
		}
		return nil
	})
	if err != nil {
		return unavailable(err)
	}
	return p.delete(ctx, old)
}
