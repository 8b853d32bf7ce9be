package compactor

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockcheck"
	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// newRealWorld has blocks of bytes, and merges and salvages them.
func newRealWorld(t *testing.T, bkt bucket.Bucket) *world {
	w := newWorld(t, bkt)
	w.Compactor.merger = mergers{w.cfg.merging(), bkt}
	w.Compactor.salvager = salvagers{w.cfg.salvaging(), w.cfg.Writer, bkt, w.owner, time.Now, w.log}
	return w
}

// ship puts the blocks of so many replicas of a slot: equal series, a sample each minute.
func (w *world) ship(tenantID string, replicas, series int, slot time.Time) (blocks []manifest.Block) {
	mint := slot.UnixMilli()
	var all []blockgen.Series
	for i := range series {
		s := blockgen.Series{Labels: labels.FromStrings("__name__", "up", "instance", fmt.Sprintf("host-%03d", i))}
		c := chunkenc.NewXORChunk()
		app, err := c.Appender()
		require.NoError(w.t, err)
		for k := range int64(120) {
			app.Append(0, mint+k*60_000, float64(k%7+int64(i)))
		}
		s.Chunks = append(s.Chunks, blockgen.Chunk{
			MinTime: mint, MaxTime: mint + 119*60_000, Encoding: c.Encoding(), Data: c.Bytes(), Samples: 120,
		})
		all = append(all, s)
	}
	for i := range replicas {
		b, err := blockgen.Build(blockgen.Options{
			ULID: blockgen.ULID(mint+slotMillis, uint64(i)), MinTime: mint, MaxTime: mint + slotMillis, Sidecar: true,
		}, all)
		require.NoError(w.t, err)
		require.NoError(w.t, b.Put(w.t.Context(), w.bkt, tenantID))
		_, err = w.owner.Add(w.t.Context(), tenantID, b.Entry)
		require.NoError(w.t, err)
		blocks = append(blocks, b.Entry)
	}
	return blocks
}

// check reads each listed block to the last byte, and returns how many samples they have.
func (w *world) check(tenantID string) (samples uint64) {
	for _, b := range w.manifest(tenantID).Blocks {
		_, err := blockcheck.Check(w.t.Context(), blockcheck.InBucket(w.bkt, tenantID, b.ULID), b.ULID, blockcheck.Options{},
			func(f blockcheck.Fault) { w.t.Errorf("block %s: %v", b.ULID, f) })
		require.NoError(w.t, err)
		samples += b.Samples
	}
	return samples
}

// TestRealBlocksBecomeADay merges bytes: three replicas of a day become one block that has each sample once.
func TestRealBlocksBecomeADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRealWorld(t, bucket.NewInMemory())
		w.start()
		begin := midnight().Add(24 * time.Hour)
		for slot := begin; slot.Before(begin.Add(24 * time.Hour)); slot = slot.Add(2 * time.Hour) {
			time.Sleep(time.Until(slot.Add(2*time.Hour + time.Minute)))
			w.ship("acme", 3, 5, slot)
			time.Sleep(2 * time.Minute)
			require.EqualValues(t, (slot.Sub(begin)/time.Minute+120)*5, w.check("acme"))
		}
		time.Sleep(6 * time.Hour)
		m := w.manifest("acme")
		require.Len(t, m.Blocks, 1)
		require.EqualValues(t, 24*60*5, w.check("acme"))
		require.Empty(t, w.status("acme").LastError)
		require.EqualValues(t, 13, testutil.ToFloat64(w.metrics.jobs.WithLabelValues("slot", "done"))+
			testutil.ToFloat64(w.metrics.jobs.WithLabelValues("day", "done")))
	})
}

// TestADamagedReplicaIsSalvaged: the slot is merged in the same cycle, and nothing is lost.
func TestADamagedReplicaIsSalvaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRealWorld(t, bucket.NewInMemory())
		slot := midnight()
		bad := w.ship("acme", 3, 5, slot)[1]
		w.ship("acme", 3, 5, slot.Add(2*time.Hour))
		flip(t, w.bkt, block.Key("acme", bad.ULID, "chunks/000001"))
		w.start()
		time.Sleep(time.Minute)
		m := w.manifest("acme")
		require.Len(t, m.Blocks, 2)
		require.EqualValues(t, 2*120*5, w.check("acme"))
		require.Empty(t, m.Lost, "two replicas have it")
		require.EqualValues(t, 1, testutil.ToFloat64(w.metrics.salvages.WithLabelValues(salvageDone)))
	})
}

// lost is a Damage of a block that misses objects, once it is told of one.
type lost struct{ id atomic.Pointer[ulid.ULID] }

func (d *lost) Damaged(string) map[ulid.ULID]string {
	if id := d.id.Load(); id != nil {
		return map[ulid.ULID]string{*id: "it has no meta.json"}
	}
	return nil
}

func (*lost) Foreign(string) map[ulid.ULID]string { return nil }

// TestAMergedBlockThatIsGoneIsMadeAgain from what it was made of, as long as that is there: when a merge meets it, and when
// the listing misses it.
func TestAMergedBlockThatIsGoneIsMadeAgain(t *testing.T) {
	for name, byListing := range map[string]bool{"by a merge": false, "by the listing": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newRealWorld(t, bucket.NewInMemory())
				listing := &lost{}
				w.WatchDamage(listing)
				w.ship("acme", 3, 5, midnight())
				w.ship("acme", 3, 5, midnight().Add(2*time.Hour))
				w.start()
				time.Sleep(time.Minute)
				m := w.manifest("acme")
				require.Len(t, m.Blocks, 2)
				gone := m.Blocks[0].ULID
				require.NoError(t, block.Delete(t.Context(), w.bkt, "acme", gone))
				if byListing {
					listing.id.Store(&gone)
					_, err := w.Run(t.Context(), "acme", true)
					require.NoError(t, err)
				} else {
					time.Sleep(36 * time.Hour) // the day is over
					require.Len(t, w.manifest("acme").Blocks, 1)
				}
				m = w.manifest("acme")
				require.False(t, slices.ContainsFunc(m.Blocks, func(b manifest.Block) bool { return b.ULID == gone }))
				require.Empty(t, m.Lost)
				require.EqualValues(t, 2*120*5, w.check("acme"))
				require.EqualValues(t, 1, testutil.ToFloat64(w.metrics.salvages.WithLabelValues(salvageDone)))
			})
		})
	}
}

// TestARepairHoldsUpNobody: making a block again takes as long as a merge. Other tenants are looked at and merged meanwhile,
// and the deletion of its own tenant ends it.
func TestARepairHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRealWorld(t, bucket.NewInMemory())
		w.cfg.Concurrency = 2
		w.Compactor.salvager = endless{}
		listing := &lost{}
		w.WatchDamage(listing)
		w.ship("acme", 3, 5, midnight())
		w.start()
		time.Sleep(time.Minute)
		gone := w.manifest("acme").Blocks[0].ULID
		require.NoError(t, block.Delete(t.Context(), w.bkt, "acme", gone))
		listing.id.Store(&gone)
		_, err := w.Run(t.Context(), "acme", false)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Len(t, w.status("acme").Running, 1)
		require.Equal(t, kindRepair, w.status("acme").Running[0].Kind)

		w.ship("other", 3, 5, midnight())
		time.Sleep(time.Hour)
		require.Len(t, w.manifest("other").Blocks, 1)
		_, err = w.owner.Doom(t.Context(), "acme", time.Hour)
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		require.True(t, w.Stop("acme"))
	})
}

// TestABlockThatIsGoneStaysListed when nothing gives it back: people decide.
func TestABlockThatIsGoneStaysListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRealWorld(t, bucket.NewInMemory())
		gone := w.ship("acme", 3, 5, midnight())[0].ULID
		require.NoError(t, block.Delete(t.Context(), w.bkt, "acme", gone))
		w.start()
		time.Sleep(72 * time.Hour)
		m := w.manifest("acme")
		require.Len(t, m.Blocks, 2, "the others were merged")
		_, listed := m.Find(gone)
		require.True(t, listed)
		require.Empty(t, m.Lost)
		s := w.status("acme")
		require.Equal(t, "excluded", string(s.Skips[0].Reason))
		require.Contains(t, s.Skips[0].Detail, "-accept-loss")
		require.Positive(t, w.lag(), "the alert fires")
	})
}

func flip(t *testing.T, bkt bucket.Bucket, key string) {
	t.Helper()
	r, err := bkt.Get(t.Context(), key)
	require.NoError(t, err)
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	data[len(data)/2] ^= 0x10
	require.NoError(t, bkt.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))))
}

// TestDeletedSeriesLeaveTheBlocks: a merge works deletions in, one that is cancelled meanwhile does not get in, and what is
// done for long is forgotten.
func TestDeletedSeriesLeaveTheBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newRealWorld(t, bucket.NewInMemory())
		slot := midnight()
		w.ship("acme", 1, 5, slot)
		d, err := w.owner.Delete(t.Context(), "acme", manifest.Deletion{
			Selectors: []string{`up{instance="host-001"}`}, MinTime: math.MinInt64, MaxTime: slot.Add(time.Hour).UnixMilli() - 1,
		})
		require.NoError(t, err)
		w.start()
		time.Sleep(2*time.Hour + 10*time.Minute)
		require.EqualValues(t, 4*120+60, w.check("acme"))
		m := w.manifest("acme")
		require.Empty(t, m.Pending(d.ID))
		require.Len(t, m.Deletions, 1)

		all, err := w.owner.Delete(t.Context(), "acme", manifest.Deletion{
			Selectors: []string{`{__name__=~".+"}`}, MinTime: math.MinInt64, MaxTime: time.Now().UnixMilli(),
		})
		require.NoError(t, err)
		require.NoError(t, w.owner.CancelDeletion(t.Context(), "acme", all.ID))
		time.Sleep(31 * 24 * time.Hour)
		m = w.manifest("acme")
		require.Empty(t, m.Deletions)
		require.EqualValues(t, 4*120+60, w.check("acme"))

		_, err = w.owner.Delete(t.Context(), "acme", manifest.Deletion{
			Selectors: []string{`{__name__=~".+"}`}, MinTime: math.MinInt64, MaxTime: time.Now().UnixMilli(),
		})
		require.NoError(t, err)
		time.Sleep(3 * time.Hour)
		require.Empty(t, w.manifest("acme").Blocks, "of which nothing is left")
	})
}
