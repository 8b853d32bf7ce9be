package block

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/internal/errkind"
)

// FetchMeta reads the meta.json of a block in the bucket. ErrNoMeta means that there is none; an unreadable one is an
// error of kind Corrupt, a failing bucket one of kind Unavailable.
func FetchMeta(ctx context.Context, bkt bucket.Bucket, tenantID string, id ulid.ULID) (*Meta, error) {
	m, _, err := fetchMeta(ctx, bkt, tenantID, id)
	if err != nil {
		return nil, fmt.Errorf("block %s: %w", id, err)
	}
	return m, nil
}

// fetchMeta also returns the size of the meta.json.
func fetchMeta(ctx context.Context, bkt bucket.Bucket, tenantID string, id ulid.ULID) (*Meta, int64, error) {
	body, err := bkt.Get(ctx, Key(tenantID, id, MetaName))
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, 0, fmt.Errorf("%w: %w", ErrNoMeta, err)
	}
	if err != nil {
		return nil, 0, unavailable(err)
	}
	data, err := io.ReadAll(io.LimitReader(body, MaxMetaBytes+1))
	if err := errors.Join(err, body.Close()); err != nil {
		return nil, 0, unavailable(err)
	}
	m, err := ParseMeta(data)
	if err == nil && m.ULID != id {
		err = errkind.New(errkind.Corrupt, "meta.json is of block %s", m.ULID)
	}
	if err != nil {
		// Before the object is called damaged: was all of it received?
		return nil, 0, cmp.Or(receivedInFull(ctx, bkt, Key(tenantID, id, MetaName), len(data)), err)
	}
	return m, int64(len(data)), nil
}

func receivedInFull(ctx context.Context, bkt bucket.Bucket, key string, n int) error {
	o, err := bkt.Stat(ctx, key)
	if err != nil {
		return unavailable(err)
	}
	if o.Size != int64(n) {
		return errkind.New(errkind.Unavailable, "received %d of %d bytes of %s", n, o.Size, key)
	}
	return nil
}

// Verify checks that each object that the block's meta.json names is in the bucket with its size. Of a block whose
// meta.json names none, as old programs wrote them, the index and a first file of chunks have to be there.
//
// ErrNoMeta, ErrIncomplete: see there. A bucket that fails gives an error of kind Unavailable.
func Verify(ctx context.Context, bkt bucket.Bucket, tenantID string, id ulid.ULID) error {
	m, err := FetchMeta(ctx, bkt, tenantID, id)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	files, complete := m.files()
	if !complete {
		files = []File{{Name: IndexName, SizeBytes: -1}}
		if m.Stats.NumChunks > 0 {
			files = append(files, File{Name: SegmentName(1), SizeBytes: -1})
		}
	}
	for _, f := range files {
		if err := verifySize(ctx, bkt, Key(tenantID, id, f.Name), f.SizeBytes); err != nil {
			return fmt.Errorf("verify block %s: %w", id, err)
		}
	}
	return nil
}

// verifySize checks the size of one object; a negative size means that any will do.
func verifySize(ctx context.Context, bkt bucket.Bucket, key string, size int64) error {
	o, err := bkt.Stat(ctx, key)
	if errors.Is(err, bucket.ErrNotFound) {
		return errkind.New(errkind.Corrupt, "%w: %w", ErrIncomplete, err)
	}
	if err != nil {
		return unavailable(err)
	}
	if size >= 0 && o.Size != size {
		return errkind.New(errkind.Corrupt, "%w: %s has %d bytes instead of %d", ErrIncomplete, key, o.Size, size)
	}
	return nil
}

// Delete removes a block from the bucket, meta.json first, so that at no moment it looks complete and is not. Objects
// of other programs in the block's folder go with it. After an error call it again. A block that is not there is no
// error.
func Delete(ctx context.Context, bkt bucket.Bucket, tenantID string, id ulid.ULID) error {
	if err := deleteBlock(ctx, bkt, tenantID, id); err != nil {
		return fmt.Errorf("delete block %s: %w", id, unavailable(err))
	}
	return nil
}

func deleteBlock(ctx context.Context, bkt bucket.Bucket, tenantID string, id ulid.ULID) error {
	if err := bkt.Delete(ctx, Key(tenantID, id, MetaName)); err != nil {
		return err
	}
	var keys []string
	err := bkt.List(ctx, Prefix(tenantID, id), true, func(o bucket.Object) error {
		keys = append(keys, o.Key)
		return nil
	})
	if err != nil {
		return err
	}
	return bkt.Delete(ctx, keys...)
}

// unavailable gives an error of the bucket its kind, unless the caller went away.
func unavailable(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return errkind.Wrap(errkind.Unavailable, err)
}
