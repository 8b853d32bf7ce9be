package manifest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/cli"
)

// version is one that a listing shows.
type version struct {
	Number uint64 `json:"version"`
	// Written is by the store's clock.
	Written time.Time `json:"written"`
	Bytes   int64     `json:"bytes"`
}

// versions lists those of a tenant, ascending.
func (p *place) versions(ctx context.Context, tenantID string) (found []version, err error) {
	err = p.bkt.List(ctx, manifest.Prefix(tenantID), false, func(o bucket.Object) error {
		if n, ok := manifest.ParseKey(tenantID, o.Key); ok {
			found = append(found, version{n, o.LastModified, o.Size})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list manifests of tenant %s: %w", tenantID, err)
	}
	return found, nil
}

// read returns one version. A damaged one is an error marked as cli.ErrWrong: the bucket could be read.
func (p *place) read(ctx context.Context, tenantID string, number uint64) (*manifest.Manifest, error) {
	key := manifest.Key(tenantID, number)
	body, err := p.bkt.Get(ctx, key)
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, fmt.Errorf("tenant %s has no manifest version %d in %s", tenantID, number, p.bkt.Name())
	}
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	m, err := manifest.Decode(data)
	if err == nil && (m.Tenant != tenantID || m.Version != number) {
		err = fmt.Errorf("it holds version %d of tenant %s", m.Version, m.Tenant)
	}
	if err != nil {
		return nil, cli.Wrong(fmt.Errorf("read %s, %d bytes: %w", key, len(data), err))
	}
	return m, nil
}

// newest returns the newest of versions. When it is damaged the error says which one before it is not.
func (p *place) newest(ctx context.Context, tenantID string, versions []version) (*manifest.Manifest, error) {
	if len(versions) == 0 {
		return nil, cli.Wrong(fmt.Errorf("tenant %s has no manifest in %s", tenantID, p.bkt.Name()))
	}
	m, err := p.read(ctx, tenantID, versions[len(versions)-1].Number)
	if err == nil || !errors.Is(err, cli.ErrWrong) {
		return m, err
	}
	for i := len(versions) - 2; i >= 0; i-- {
		if _, olderErr := p.read(ctx, tenantID, versions[i].Number); olderErr == nil {
			return nil, fmt.Errorf("%w; the newest version that can be read is %d, of %s", err, versions[i].Number,
				clock(versions[i].Written))
		} else if !errors.Is(olderErr, cli.ErrWrong) {
			return nil, errors.Join(err, olderErr)
		}
	}
	return nil, fmt.Errorf("%w; no other version can be read", err)
}
