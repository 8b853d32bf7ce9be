package compactor

import (
	"encoding/json"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/budget"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/reader"
	"github.com/duramendb/duramen/chunkstore/sidecar"
	"github.com/duramendb/duramen/compactor/plan"
	"github.com/duramendb/duramen/compactor/salvage"
)

// ledger is which samples there are: values by time by series.
type ledger map[string]map[int64]float64

// slotSeries are the series of one replica in one slot: eight that all replicas have, and two of its own.
func slotSeries(t *testing.T, slot int64, replica int, all ledger) (out []blockgen.Series) {
	t.Helper()
	for i := range 10 {
		lset := labels.FromStrings("__name__", "m", "i", strconv.Itoa(i))
		if i >= 8 {
			lset = labels.FromStrings("__name__", "own", "i", strconv.Itoa(i), "replica", strconv.Itoa(replica))
		}
		name := lset.String()
		if all[name] == nil {
			all[name] = map[int64]float64{}
		}
		s := blockgen.Series{Labels: lset}
		for from := slot; from < slot+slotMillis; from += slotMillis / 2 {
			c := chunkenc.NewXORChunk()
			app, err := c.Appender()
			require.NoError(t, err)
			last := int64(0)
			for at := from; at < from+slotMillis/2; at += 300_000 {
				v := float64(at/1000%7919) * float64(i+1)
				app.Append(0, at, v)
				all[name][at] = v
				last = at
			}
			s.Chunks = append(s.Chunks, blockgen.Chunk{
				MinTime: from, MaxTime: last, Encoding: c.Encoding(), Data: slices.Clone(c.Bytes()), Samples: c.NumSamples(),
			})
		}
		out = append(out, s)
	}
	return out
}

// damagedBlocks is how many blocks are damaged; DAMAGED_BLOCKS says another number.
func damagedBlocks() int {
	if n, err := strconv.Atoi(os.Getenv("DAMAGED_BLOCKS")); err == nil {
		return n
	}
	return 21
}

// TestDamagedBlocksStopNoOther has a byte wrong in each file of each of many blocks, all replicas of their slots. The other
// slots are merged in the same run, and so are these, with what can be read; what cannot is named by the reports, and
// its times are in the manifest.
func TestDamagedBlocksStopNoOther(t *testing.T) {
	const tenantID, replicas, soundSlots = "acme", 3, 4
	r := rand.New(rand.NewPCG(1, 100))
	bkt, all := bucket.NewInMemory(), ledger{}
	now := time.UnixMilli(1_700_000_000_000)
	owner := manifest.NewOwner(bkt, func() time.Time { return now }, slog.New(slog.DiscardHandler), nil)
	damaged := damagedBlocks()
	slots := (damaged+replicas-1)/replicas + soundSlots
	first := (now.UnixMilli()/slotMillis - int64(slots) - 3) * slotMillis
	n := 0
	for i := range slots {
		slot := first + int64(i)*slotMillis
		for replica := range replicas {
			b, err := blockgen.Build(blockgen.Options{
				ULID: blockgen.ULID(slot+slotMillis, uint64(n)), MinTime: slot, MaxTime: slot + slotMillis, Sidecar: true,
			}, slotSeries(t, slot, replica, all))
			require.NoError(t, err)
			if n++; n <= damaged {
				for i := range b.Files {
					data := slices.Clone(b.Files[i].Data)
					data[r.IntN(len(data))] ^= byte(1 + r.IntN(255))
					b.Files[i].Data = data
				}
			}
			require.NoError(t, b.Put(t.Context(), bkt, tenantID))
			_, err = owner.Add(t.Context(), tenantID, b.Entry)
			require.NoError(t, err)
		}
	}
	cfg := Config{
		Dir: t.TempDir(), Writer: manifest.CompactorWriter + "test", Concurrency: 2, MaxIndexBytes: plan.DefaultMaxIndexBytes,
		Salvage: salvage.Config{Keep: salvage.DefaultKeep},
	}
	reg := prometheus.NewRegistry()
	c, err := New(cfg, bkt, owner, &fakeLimits{}, &fakeCluster{}, func() time.Time { return now }, slog.New(slog.DiscardHandler), reg)
	require.NoError(t, err)
	s := c.Service()
	require.NoError(t, s.Start(t.Context()))
	status, err := c.Run(t.Context(), tenantID, true)
	require.NoError(t, err)
	require.NoError(t, s.Stop())
	require.Empty(t, status.LastError)

	m, err := owner.Refresh(t.Context(), tenantID)
	require.NoError(t, err)
	for _, b := range m.Blocks {
		require.Greater(t, b.Level, 1, "the slot from %d was not merged", b.MinTime)
	}
	reports := readReports(t, bkt, tenantID)
	require.Len(t, reports, int(testutil.ToFloat64(c.metrics.salvages.WithLabelValues(salvageDone))))
	require.Greater(t, len(reports), damaged/2, "a byte that no merge reads is one that it does not miss")
	judge(t, all, samplesOf(t, bkt, m), m, reports)
}

// readReports returns the reports of a tenant.
func readReports(t *testing.T, bkt bucket.Bucket, tenantID string) (all []salvage.Report) {
	t.Helper()
	require.NoError(t, bkt.List(t.Context(), tenantID+"/duramen/quarantine/", true, func(o bucket.Object) error {
		body, err := bkt.Get(t.Context(), o.Key)
		require.NoError(t, err)
		data, err := io.ReadAll(body)
		require.NoError(t, err)
		require.NoError(t, body.Close())
		var r salvage.Report
		require.NoError(t, json.Unmarshal(data, &r))
		require.Equal(t, r.Block.ULID.String()+".json", path.Base(o.Key))
		all = append(all, r)
		return nil
	}))
	return all
}

type noFetchLimits struct{}

func (noFetchLimits) MaxFetchedSeriesPerQuery(string) int       { return 0 }
func (noFetchLimits) MaxFetchedChunkBytesPerQuery(string) int64 { return 0 }

// samplesOf reads all samples of the listed blocks as a query does.
func samplesOf(t *testing.T, bkt bucket.Bucket, m *manifest.Manifest) ledger {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	sidecars := sidecar.New(sidecar.Config{Dir: t.TempDir()}, bkt, nil, time.Now, log, nil)
	cfg := reader.Config{ParallelBlocks: 4, DirectoryCacheBytes: 1 << 20, PageCacheBytes: 1 << 20}
	local, err := reader.NewLocal(cfg, sidecars.Bucket(), sidecars, nil, budget.NewPool(budget.PoolConfig{Bytes: 64 << 20}, nil),
		noFetchLimits{}, log, nil)
	require.NoError(t, err)
	rd, err := reader.New(cfg, local, log, nil)
	require.NoError(t, err)
	defer func() {
		require.NoError(t, local.Close())
		require.NoError(t, sidecars.Close())
	}()
	q, err := rd.Querier(m.Tenant, m.Blocks, nil, 0, 1<<60)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "i", ".+"))
	out := ledger{}
	for set.Next() {
		values := map[int64]float64{}
		it := set.At().Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			at, v := it.At()
			values[at] = v
		}
		require.NoError(t, it.Err())
		out[set.At().Labels().String()] = values
	}
	require.NoError(t, set.Err())
	return out
}

// judge: each sample is there, or a report names its series and its time, and the manifest its time. Nothing else is.
func judge(t *testing.T, want, got ledger, m *manifest.Manifest, reports []salvage.Report) {
	t.Helper()
	reported := func(name string, at int64) bool {
		return slices.ContainsFunc(reports, func(r salvage.Report) bool {
			return slices.ContainsFunc(r.LostSeries, func(s salvage.LostSeries) bool {
				return s.Series == name && s.MinTime <= at && at < s.MaxTime
			})
		})
	}
	lost := uint64(0)
	for name, samples := range want {
		for at, v := range samples {
			have, ok := got[name][at]
			if !ok {
				lost++
				require.True(t, reported(name, at), "%s at %d is gone, and no report says it", name, at)
				require.NotEmpty(t, m.LostIn(at, at), "a query at %d carries no warning", at)
				continue
			}
			require.InDelta(t, v, have, 0)
		}
	}
	for name, samples := range got {
		for at := range samples {
			require.Contains(t, want[name], at, "%s at %d was never sent", name, at)
		}
	}
	said, covered := uint64(0), uint64(0)
	for _, r := range reports {
		require.True(t, r.SamplesExact)
		said, covered = said+r.Lost.Samples, covered+r.Covered.Samples
		require.Equal(t, r.Lossless, len(r.LostSeries) == 0, "%+v", r)
	}
	require.Equal(t, said, lost, "samples that the reports count")
	require.Positive(t, lost)
	require.Positive(t, covered)
	t.Logf("%d reports, %d samples lost, %d covered by replicas", len(reports), lost, covered)
}

// missing is a Damage of some blocks.
type missing []ulid.ULID

func (d missing) Damaged(string) map[ulid.ULID]string {
	out := map[ulid.ULID]string{}
	for _, id := range d {
		out[id] = "it has no meta.json"
	}
	return out
}

func (missing) Foreign(string) map[ulid.ULID]string { return nil }

// TestMissingMetaIsWrittenAgain: a block whose other objects are there needs no salvage.
func TestMissingMetaIsWrittenAgain(t *testing.T) {
	bkt := bucket.NewInMemory()
	w := newWorld(t, bkt)
	slot := time.Now().UnixMilli() / slotMillis * slotMillis
	b, err := blockgen.Build(blockgen.Options{
		ULID: blockgen.ULID(slot+slotMillis, 1), MinTime: slot, MaxTime: slot + slotMillis, Sidecar: true,
	}, slotSeries(t, slot, 0, ledger{}))
	require.NoError(t, err)
	require.NoError(t, b.Put(t.Context(), bkt, "acme"))
	_, err = w.owner.Add(t.Context(), "acme", b.Entry)
	require.NoError(t, err)
	w.WatchDamage(missing{b.Entry.ULID, blockgen.ULID(1, 1)})
	require.NoError(t, bkt.Delete(t.Context(), block.Key("acme", b.Entry.ULID, block.MetaName)))
	_, err = w.Run(t.Context(), "acme", false)
	require.NoError(t, err)
	require.NoError(t, block.Verify(t.Context(), bkt, "acme", b.Entry.ULID))
	require.False(t, w.mayLook(b.Entry.ULID), "not looked at again at once")
}
