package merge

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/internal/errkind"
)

// TestEachDamagedByte: a byte that differs names its block, or makes no difference.
func TestEachDamagedByte(t *testing.T) {
	w := replicas(t)
	want, _ := w.naive(t)
	stride := int(rounds(17, 131)) //nolint:gosec // small
	if *seeds >= 10_000 {
		stride = 1
	}
	damaged, sound := 0, 0
	for i, b := range w.blocks {
		for _, f := range b.Files {
			for at := i; at < len(f.Data); at += stride {
				bkt, j, cfg := w.put(t), w.job(1), Config{Scratch: t.TempDir()}
				data := bytes.Clone(f.Data)
				data[at] ^= 1 << (at % 8)
				key := block.Key(tenantID, b.Entry.ULID, f.Name)
				require.NoError(t, bkt.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))))
				r, err := Run(t.Context(), cfg, bkt, tenantID, j, nil)
				if err == nil {
					sound++
					require.Equal(t, want, dump(t, bkt, j, r), "%s at %d", f.Name, at)
					continue
				}
				var d *Damaged
				require.ErrorAs(t, err, &d, "%s at %d", f.Name, at)
				require.Equal(t, b.Entry.ULID, d.ULID, "%s at %d: %v", f.Name, at, err)
				require.Equal(t, errkind.Corrupt, errkind.Of(err))
				requireNothing(t, bkt, j, cfg)
				damaged++
			}
		}
	}
	require.NotZero(t, damaged)
	require.NotZero(t, sound, "what a merge does not need, such as postings")
}

// TestMissingObjects: each object that is needed and is not there is named.
func TestMissingObjects(t *testing.T) {
	for _, name := range []string{block.IndexName, block.SegmentName(1), block.MetaName} {
		w := replicas(t)
		bkt, j, cfg := w.put(t), w.job(1), Config{Scratch: t.TempDir()}
		id := w.blocks[1].Entry.ULID
		require.NoError(t, bkt.Delete(t.Context(), block.Key(tenantID, id, name)))
		_, err := Run(t.Context(), cfg, bkt, tenantID, j, nil)
		var d *Damaged
		require.ErrorAs(t, err, &d, name)
		require.Equal(t, id, d.ULID)
		require.Equal(t, name, d.File)
		requireNothing(t, bkt, j, cfg)
	}
	w := replicas(t)
	bkt, j, cfg := w.put(t), w.job(1), Config{Scratch: t.TempDir()}
	require.NoError(t, block.Delete(t.Context(), bkt, tenantID, w.blocks[0].Entry.ULID))
	_, err := Run(t.Context(), cfg, bkt, tenantID, j, nil)
	var g *Gone
	require.ErrorAs(t, err, &g)
	require.Equal(t, w.blocks[0].Entry.ULID, g.ULID)
}

// TestEachOperationFails: whichever operation of the bucket fails, and however, there is an exact output, or an error
// and nothing to see. No fault of the way is called a damage of an input.
func TestEachOperationFails(t *testing.T) {
	w := replicas(t)
	want, _ := w.naive(t)
	cfg := Config{Scratch: t.TempDir(), SegmentBytes: 700}
	counted := faultbucket.New(w.put(t), nil)
	_, err := Run(t.Context(), cfg, counted, tenantID, w.job(1), nil)
	require.NoError(t, err)
	ops := counted.Ops()
	step := int(rounds(1, 7)) //nolint:gosec // small
	failed, disputed := 0, 0
	for n := 0; n < len(ops); n += step {
		for _, fault := range []faultbucket.Fault{
			faultbucket.Before, faultbucket.After, faultbucket.Truncate, faultbucket.BreakOff, faultbucket.Flip,
			faultbucket.Missing, faultbucket.Stall,
		} {
			inner := w.put(t)
			ctx, cancel := context.WithCancel(t.Context())
			bkt := faultbucket.New(inner, func(op faultbucket.Op) faultbucket.Fault {
				if op.N != n {
					return faultbucket.None
				}
				if fault == faultbucket.Stall {
					cancel()
				}
				return fault
			})
			j := w.job(1)
			r, err := Run(ctx, cfg, bkt, tenantID, j, nil)
			cancel()
			requireNoScratch(t, cfg)
			if err == nil {
				require.Equal(t, want, dump(t, inner, j, r), "%s of %+v", fault, ops[n])
				continue
			}
			failed++
			var d *Disputed
			if errors.As(err, &d) {
				disputed++
				require.NotEmpty(t, d.Seen.ULID)
			}
			var lost *Lost
			require.NotErrorAs(t, err, &lost, "%s of %+v", fault, ops[n])
			if fault != faultbucket.Missing {
				require.NotEqual(t, errkind.Corrupt, errkind.Of(err), "%s of %+v: %v", fault, ops[n], err)
			}
			if fault == faultbucket.Stall {
				require.ErrorIs(t, err, context.Canceled)
			}
			_, seen := inner.Stat(t.Context(), block.Key(tenantID, j.ULID, block.MetaName))
			if ops[n].Key != block.Key(tenantID, j.ULID, block.MetaName) || ops[n].Method == "Put" && fault == faultbucket.Before {
				require.ErrorIs(t, seen, bucket.ErrNotFound, "%s of %+v", fault, ops[n])
			}
		}
	}
	require.NotZero(t, failed)
	require.NotZero(t, disputed, "what comes damaged once is no damage")
}
