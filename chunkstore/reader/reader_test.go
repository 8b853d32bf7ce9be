package reader

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/countbucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

var everything = labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, ".+")

func TestAnswersAsPrometheusDoesFromLocalDisk(t *testing.T) {
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 1))
		f := randomFixture(t, r)
		rd := f.reader(t, f.bkt)
		for range 15 {
			mint := int64(r.IntN(14000))
			maxt := mint + int64(r.IntN(5000))
			matchers := randomMatchers(r)
			want, got := f.reference(t, mint, maxt), must(rd.Querier(tenantID, f.blocks, nil, mint, maxt))
			chunks := must(rd.ChunkQuerier(tenantID, f.blocks, nil, mint, maxt))

			hints := &storage.SelectHints{Start: mint, End: maxt, Step: 10}
			if r.IntN(4) == 0 {
				hints.Func = "series"
			}
			if r.IntN(4) == 0 {
				hints.ShardCount, hints.ShardIndex = 3, r.Uint64N(3)
			}
			wantText, err := dump(want.Select(t.Context(), true, hints, slices.Clone(matchers)...))
			require.NoError(t, err)
			gotText, err := dump(got.Select(t.Context(), true, hints, matchers...))
			require.NoError(t, err)
			require.Equal(t, wantText, gotText, "seed %d: %v in [%d, %d]", seed, matchers, mint, maxt)

			hints.Func = ""
			require.Equal(t,
				dumpWithoutHints(t, want.Select(t.Context(), true, hints, slices.Clone(matchers)...)),
				dumpChunks(t, chunks.Select(t.Context(), true, hints, matchers...)), "seed %d: chunks", seed)

			for _, name := range []string{"i", "mod", labels.MetricName, "absent"} {
				wantValues, _, err := want.LabelValues(t.Context(), name, nil, slices.Clone(matchers)...)
				require.NoError(t, err)
				gotValues, _, err := got.LabelValues(t.Context(), name, nil, matchers...)
				require.NoError(t, err)
				require.ElementsMatch(t, wantValues, gotValues, "seed %d: values of %s", seed, name)
				require.IsIncreasing(t, append([]string{""}, gotValues...))
				limited, _, err := got.LabelValues(t.Context(), name, &storage.LabelHints{Limit: 2}, matchers...)
				require.NoError(t, err)
				require.Equal(t, gotValues[:min(2, len(gotValues))], limited[:min(2, len(limited))])
				require.LessOrEqual(t, len(limited), 2)
			}
			wantNames, _, err := want.LabelNames(t.Context(), nil, slices.Clone(matchers)...)
			require.NoError(t, err)
			gotNames, _, err := chunks.LabelNames(t.Context(), nil, matchers...)
			require.NoError(t, err)
			require.ElementsMatch(t, wantNames, gotNames, "seed %d", seed)
			for _, q := range []storage.LabelQuerier{want, got, chunks} {
				require.NoError(t, q.Close())
			}
		}
	}
}

func TestHintsBeyondTheQueriersRangeAreNarrowed(t *testing.T) {
	f := &fixture{bkt: bucket.NewInMemory()}
	f.add(t, writeBlock(t, rand.New(rand.NewPCG(1, 2)), t.TempDir(), 3, 0, 3000, 10))
	rd := f.reader(t, f.bkt)
	want := f.reference(t, 1000, 1500)
	wantText, err := dump(want.Select(t.Context(), true, nil, everything))
	require.NoError(t, err)
	require.NoError(t, want.Close())

	q := must(rd.Querier(tenantID, f.blocks, nil, 1000, 1500))
	got, err := dump(q.Select(t.Context(), true, &storage.SelectHints{Start: 0, End: 9999}, everything))
	require.NoError(t, err)
	require.Equal(t, wantText, got)
	got, err = dump(q.Select(t.Context(), true, &storage.SelectHints{Start: 1501, End: 9999}, everything))
	require.NoError(t, err)
	require.Empty(t, got)
	require.NoError(t, q.Close())
}

// TestFaultsGiveAnErrorOrTheWholeAnswer breaks one read after the other, and the one that repeats it.
func TestFaultsGiveAnErrorOrTheWholeAnswer(t *testing.T) {
	f := smallFixture(t, rand.New(rand.NewPCG(7, 3)))
	want := f.answer(t)
	for _, how := range faults {
		struck := 0
		for n := 1; ; n++ {
			// What is damaged is read once more: the fault has to stay for that.
			faulty := &faultyBucket{Bucket: f.bkt, left: n, again: 1, how: how}
			q := must(f.reader(t, faulty).Querier(tenantID, f.blocks, nil, 0, math.MaxInt64))
			got, err := dump(q.Select(t.Context(), true, nil, everything))
			require.NoError(t, q.Close())
			if faulty.left > 0 {
				require.NoError(t, err)
				require.Equal(t, want, got)
				break // the query takes fewer reads than that
			}
			if err == nil {
				require.Equal(t, want, got, "%s at read %d: a short answer without an error", how, n)
				continue
			}
			struck++
			require.Contains(t, err.Error(), tenantID, "%s at read %d", how, n)
			require.Contains(t, err.Error(), "block 0", "%s at read %d", how, n)
			switch how {
			case "fail", "slow death":
				require.ErrorIs(t, err, errInjected)
				require.Equal(t, errkind.Unavailable, errkind.Of(err), "%s at read %d: %v", how, n, err)
			case "cut body", "short object":
				require.Equal(t, errkind.Unavailable, errkind.Of(err), "%s at read %d: %v", how, n, err)
			case "missing":
				require.ErrorIs(t, err, ErrGone)
				require.Equal(t, errkind.Unavailable, errkind.Of(err), "%s at read %d: %v", how, n, err)
			default:
				require.Equal(t, errkind.Corrupt, errkind.Of(err), "%s at read %d: %v", how, n, err)
			}
		}
		require.Positive(t, struck, how)
	}
}

// TestDamageOnTheWayPasses: what is damaged once is right when it is read again.
func TestDamageOnTheWayPasses(t *testing.T) {
	f := smallFixture(t, rand.New(rand.NewPCG(7, 4)))
	want := f.answer(t)
	for _, how := range []string{"short object", "cut body", "flipped bit"} {
		for n := 1; ; n++ {
			faulty := &faultyBucket{Bucket: f.bkt, left: n, how: how}
			rd := f.reader(t, faulty)
			for range 2 {
				q := must(rd.Querier(tenantID, f.blocks, nil, 0, math.MaxInt64))
				got, err := dump(q.Select(t.Context(), true, nil, everything))
				require.NoError(t, err, "%s at read %d", how, n)
				require.Equal(t, want, got, "%s at read %d", how, n)
				require.NoError(t, q.Close())
			}
			if faulty.left > 0 {
				require.Greater(t, n, 3)
				break // the queries take fewer reads than that
			}
		}
	}
}

// TestADamagedSidecar damages one byte after the other, in the bucket: the sidecar is built again, and the query goes on.
func TestADamagedSidecar(t *testing.T) {
	f := &fixture{bkt: bucket.NewInMemory()}
	f.add(t, writeBlock(t, rand.New(rand.NewPCG(1, 4)), t.TempDir(), 8, 0, 1000, 10))
	want := f.answer(t)
	key := sidecarKey(tenantID, f.blocks[0].ULID)
	intact := readAll(t, f.bkt, key)
	rebuilt := 0
	for i := 0; i < len(intact); i += 37 {
		damaged := slices.Clone(intact)
		damaged[i] ^= 0x11
		put(t, f.bkt, key, damaged)
		rd := f.reader(t, f.bkt)
		q := must(rd.Querier(tenantID, f.blocks, nil, 0, 1000))
		for range 2 {
			got, err := dump(q.Select(t.Context(), true, nil, everything))
			require.NoError(t, err, "byte %d", i)
			require.Equal(t, want, got, "byte %d", i)
			_, _, err = q.LabelValues(t.Context(), "i", nil)
			require.NoError(t, err, "byte %d", i)
		}
		require.NoError(t, q.Close())
		calls := int(rd.sidecars.calls.Load())
		require.LessOrEqual(t, calls, 1, "byte %d", i)
		rebuilt += calls
	}
	require.Positive(t, rebuilt)
}

// TestABlockWithoutASidecarGetsOne: the manifest knows none, or there is none where it says.
func TestABlockWithoutASidecarGetsOne(t *testing.T) {
	f := smallFixture(t, rand.New(rand.NewPCG(7, 5)))
	want := f.answer(t)
	for name, prepare := range map[string]func(*manifest.Block){
		"unknown":       func(b *manifest.Block) { b.SidecarBytes, b.DirectoryBytes = 0, 0 },
		"other sizes":   func(b *manifest.Block) { b.SidecarBytes, b.DirectoryBytes = b.SidecarBytes-1, b.DirectoryBytes-1 },
		"more than all": func(b *manifest.Block) { b.SidecarBytes = b.DirectoryBytes - 1 },
		"missing": func(b *manifest.Block) {
			require.NoError(t, f.bkt.Delete(t.Context(), sidecarKey(tenantID, b.ULID)))
		},
	} {
		blocks := slices.Clone(f.blocks)
		for i := range blocks {
			prepare(&blocks[i])
		}
		rd := f.reader(t, f.bkt)
		for range 2 {
			q := must(rd.Querier(tenantID, blocks, nil, 0, math.MaxInt64))
			got, err := dump(q.Select(t.Context(), true, nil, everything))
			require.NoError(t, err, name)
			require.Equal(t, want, got, name)
			require.NoError(t, q.Close())
			require.Equal(t, int64(len(blocks)), rd.sidecars.calls.Load(), "%s: once for each block", name)
		}
	}
}

func TestMissingBlockIsGone(t *testing.T) {
	f := randomFixture(t, rand.New(rand.NewPCG(8, 3)))
	id := missingID()
	for name, missing := range map[string]manifest.Block{
		"no sidecar known": {ULID: id, MinTime: 0, MaxTime: 100_000},
		"a sidecar known":  {ULID: id, MinTime: 0, MaxTime: 100_000, SidecarBytes: 5000, DirectoryBytes: 1000},
	} {
		blocks := append(slices.Clone(f.blocks), missing)
		q := must(f.reader(t, f.bkt).Querier(tenantID, blocks, nil, 0, 50_000))
		_, selectErr := dump(q.Select(t.Context(), true, nil, everything))
		_, _, namesErr := q.LabelNames(t.Context(), nil)
		_, _, valuesErr := q.LabelValues(t.Context(), "i", nil)
		for _, err := range []error{selectErr, namesErr, valuesErr} {
			require.ErrorIs(t, err, ErrGone, name)
			require.ErrorIs(t, err, bucket.ErrNotFound, name)
			require.Equal(t, errkind.Unavailable, errkind.Of(err), name)
			require.ErrorContains(t, err, tenantID, name)
			require.ErrorContains(t, err, id.String(), name)
		}
		require.NoError(t, q.Close())

		beside := must(f.reader(t, f.bkt).Querier(tenantID, blocks, nil, 200_000, 300_000))
		_, err := dump(beside.Select(t.Context(), true, nil, everything))
		require.NoError(t, err, "a block outside the range is not touched")
		require.NoError(t, beside.Close())
	}
}

// TestMissingChunksAreGone: a block that is being deleted loses its files one after the other.
func TestMissingChunksAreGone(t *testing.T) {
	f := randomFixture(t, rand.New(rand.NewPCG(8, 4)))
	gone := segmentKey(tenantID, f.blocks[0].ULID, 0)
	require.NoError(t, f.bkt.Delete(t.Context(), gone))
	q := must(f.reader(t, f.bkt).Querier(tenantID, f.blocks, nil, 0, math.MaxInt64))
	_, err := dump(q.Select(t.Context(), true, nil, everything))
	require.ErrorIs(t, err, ErrGone)
	require.ErrorContains(t, err, gone)
	require.NoError(t, q.Close())
}

func TestNothingIsReadBeforeTheFirstCallAndItsContextCounts(t *testing.T) {
	f := randomFixture(t, rand.New(rand.NewPCG(9, 3)))
	counting := countbucket.New(f.bkt)
	rd := f.reader(t, counting)
	q := must(rd.Querier(tenantID, f.blocks, nil, 0, math.MaxInt64))
	require.Empty(t, counting.Ops())

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := dump(q.Select(ctx, true, nil, everything))
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, errkind.Canceled, errkind.Of(err))

	ctx, cancel = context.WithCancel(t.Context())
	set := q.Select(ctx, true, nil, everything)
	require.True(t, set.Next(), "a failed open is tried again: %v", set.Err())
	cancel()
	it := set.At().Iterator(nil)
	for it.Next() != 0 {
	}
	require.ErrorIs(t, it.Err(), context.Canceled, "chunks are read with the Select's context")
	require.NoError(t, q.Close())
	require.ErrorIs(t, q.Close(), ErrClosed)
	_, err = dump(q.Select(t.Context(), true, nil, everything))
	require.ErrorIs(t, err, ErrClosed)
	_, _, err = q.LabelNames(t.Context(), nil)
	require.ErrorIs(t, err, ErrClosed)
	_, _, err = q.LabelValues(t.Context(), "i", nil)
	require.ErrorIs(t, err, ErrClosed)
}

func TestATimeThatIsUpNamesTheBucket(t *testing.T) {
	f := randomFixture(t, rand.New(rand.NewPCG(9, 4)))
	slow := countbucket.New(f.bkt)
	slow.SetLatency(time.Hour)
	q := must(f.reader(t, slow).Querier(tenantID, f.blocks, nil, 0, math.MaxInt64))
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := dump(q.Select(ctx, true, nil, everything))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, slow.Name())
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	require.NoError(t, q.Close())
}

func TestConfig(t *testing.T) {
	_, err := New(Config{ParallelBlocks: -1}, nil, nopLog, nil)
	require.ErrorContains(t, err, "-1")
	_, err = NewLocal(Config{PageCacheBytes: -2}, nil, nil, nil, nil, nil, nopLog, nil)
	require.ErrorContains(t, err, "-2")
}
