package reader

import (
	"bytes"
	"context"
	"flag"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

var everything = labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, ".+")

func TestAnswersAsPrometheusDoesFromLocalDisk(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		f := randomFixture(t, r)
		rd := f.reader(t, f.bkt)
		for range 15 {
			mint := int64(r.IntN(14000))
			maxt := mint + int64(r.IntN(5000))
			matchers := randomMatchers(r)
			want, got := f.reference(t, mint, maxt), must(rd.Querier(tenantID, f.blocks, mint, maxt))
			chunks := must(rd.ChunkQuerier(tenantID, f.blocks, mint, maxt))

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
		require.NoError(t, rd.Close())
		require.Zero(t, rd.indexes.bytes, "every handle was given back")
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

	q := must(rd.Querier(tenantID, f.blocks, 1000, 1500))
	got, err := dump(q.Select(t.Context(), true, &storage.SelectHints{Start: 0, End: 9999}, everything))
	require.NoError(t, err)
	require.Equal(t, wantText, got)
	got, err = dump(q.Select(t.Context(), true, &storage.SelectHints{Start: 1501, End: 9999}, everything))
	require.NoError(t, err)
	require.Empty(t, got)
	require.NoError(t, q.Close())
}

func TestFaultsGiveAnErrorOrTheWholeAnswer(t *testing.T) {
	f := randomFixture(t, rand.New(rand.NewPCG(7, 3)))
	reference := f.reference(t, 0, math.MaxInt64)
	want, err := dump(reference.Select(t.Context(), true, nil, everything))
	require.NoError(t, err)
	require.NoError(t, reference.Close())

	for _, how := range faults {
		struck := 0
		for n := 1; ; n++ {
			// What is damaged is read once more: the fault has to stay for that.
			faulty := &faultyBucket{Bucket: f.bkt, left: n, again: 1, how: how}
			q := must(f.reader(t, faulty).Querier(tenantID, f.blocks, 0, math.MaxInt64))
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
			case "cut body":
				require.Equal(t, errkind.Unavailable, errkind.Of(err), "%s at read %d: %v", how, n, err)
			default:
				require.Equal(t, errkind.Corrupt, errkind.Of(err), "%s at read %d: %v", how, n, err)
			}
		}
		require.Positive(t, struck, how)
	}
}

// TestDamageOnTheWayPasses: what is damaged once is right when it is read again, at once or, when the damage shows late,
// by the next query.
func TestDamageOnTheWayPasses(t *testing.T) {
	f := randomFixture(t, rand.New(rand.NewPCG(7, 4)))
	reference := f.reference(t, 0, math.MaxInt64)
	want, err := dump(reference.Select(t.Context(), true, nil, everything))
	require.NoError(t, err)
	require.NoError(t, reference.Close())
	for _, how := range []string{"short object", "flipped bit"} {
		passed := 0
		for n := 1; ; n++ {
			faulty := &faultyBucket{Bucket: f.bkt, left: n, how: how}
			rd := f.reader(t, faulty)
			ask := func() (string, error) {
				q := must(rd.Querier(tenantID, f.blocks, 0, math.MaxInt64))
				defer func() { require.NoError(t, q.Close()) }()
				return dump(q.Select(t.Context(), true, nil, everything))
			}
			got, err := ask()
			if faulty.left > 0 {
				break // the query takes fewer reads than that
			}
			if err == nil {
				passed++
				require.Equal(t, want, got, "%s at read %d", how, n)
			} else {
				require.Equal(t, "flipped bit", how, "a short object shows at once: %v", err)
			}
			got, err = ask()
			require.NoError(t, err, "%s at read %d: the second query", how, n)
			require.Equal(t, want, got)
			require.NoError(t, rd.Close())
			require.Zero(t, rd.indexes.bytes, "every handle was given back")
		}
		require.Positive(t, passed, how)
	}
}

// TestDamagedIndexIsForgotten flips one byte after the other on the way of the first read of an index. Damage that shows
// only when a series is read fails one query, and not all until the index leaves the cache.
func TestDamagedIndexIsForgotten(t *testing.T) {
	f := &fixture{bkt: bucket.NewInMemory()}
	f.add(t, writeBlock(t, rand.New(rand.NewPCG(1, 4)), t.TempDir(), 8, 0, 1000, 10))
	size, late := len(readAll(t, f.bkt, indexKey(tenantID, f.blocks[0].ULID))), 0
	for i := 0; i < size; i += 7 {
		rd := f.reader(t, &flippingBucket{Bucket: f.bkt, at: i})
		ask := func() error {
			q := must(rd.Querier(tenantID, f.blocks, 0, 1000))
			defer func() { require.NoError(t, q.Close()) }()
			_, err := dump(q.Select(t.Context(), true, nil, everything))
			return err
		}
		if err := ask(); err != nil {
			late++
			require.ErrorIs(t, err, ErrDamaged, "byte %d", i)
			require.NoError(t, ask(), "byte %d", i)
		}
		require.NoError(t, rd.Close())
		require.Zero(t, rd.indexes.bytes, "every handle was given back")
	}
	require.Positive(t, late)
}

// flippingBucket flips a bit of the first object that is read.
type flippingBucket struct {
	bucket.Bucket
	at   int
	done bool
}

func (b *flippingBucket) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	body, err := b.Bucket.Get(ctx, key)
	if err != nil || b.done {
		return body, err
	}
	defer body.Close()
	b.done = true
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	data = slices.Clone(data)
	data[b.at] ^= 0x10
	return io.NopCloser(bytes.NewReader(data)), nil
}

func TestMissingBlockIsAnErrorThatNamesIt(t *testing.T) {
	f := randomFixture(t, rand.New(rand.NewPCG(8, 3)))
	id := missingID()
	blocks := append(slices.Clone(f.blocks), manifest.Block{ULID: id, MinTime: 0, MaxTime: 100_000})
	q := must(f.reader(t, f.bkt).Querier(tenantID, blocks, 0, 50_000))
	_, err := dump(q.Select(t.Context(), true, nil, everything))
	require.ErrorIs(t, err, bucket.ErrNotFound)
	require.Equal(t, errkind.Corrupt, errkind.Of(err))
	require.ErrorContains(t, err, tenantID+"/"+id.String()+"/index")
	_, _, err = q.LabelNames(t.Context(), nil)
	require.Equal(t, errkind.Corrupt, errkind.Of(err))
	_, _, err = q.LabelValues(t.Context(), "i", nil)
	require.Equal(t, errkind.Corrupt, errkind.Of(err))
	require.NoError(t, q.Close())

	beside := must(f.reader(t, f.bkt).Querier(tenantID, blocks, 200_000, 300_000))
	_, err = dump(beside.Select(t.Context(), true, nil, everything))
	require.NoError(t, err, "a block outside the range is not touched")
	require.NoError(t, beside.Close())
}

func TestDamagedIndexIsAnError(t *testing.T) {
	f := &fixture{bkt: bucket.NewInMemory()}
	f.add(t, writeBlock(t, rand.New(rand.NewPCG(1, 4)), t.TempDir(), 8, 0, 1000, 10))
	reference := f.reference(t, 0, 1000)
	want, err := dump(reference.Select(t.Context(), true, nil, everything))
	require.NoError(t, err)
	require.NoError(t, reference.Close())
	key := indexKey(tenantID, f.blocks[0].ULID)
	intact := readAll(t, f.bkt, key)
	for i := 0; i < len(intact); i += 11 {
		damaged := slices.Clone(intact)
		damaged[i] ^= 0xff
		put(t, f.bkt, key, damaged)
		q := must(f.reader(t, f.bkt).Querier(tenantID, f.blocks, 0, 1000))
		got, err := dump(q.Select(t.Context(), true, nil, everything))
		require.NoError(t, q.Close())
		if err == nil {
			require.Equal(t, want, got, "byte %d", i)
		} else {
			require.Equal(t, errkind.Corrupt, errkind.Of(err), "byte %d: %v", i, err)
		}
	}
}

func TestNothingIsReadBeforeTheFirstCallAndItsContextCounts(t *testing.T) {
	f := randomFixture(t, rand.New(rand.NewPCG(9, 3)))
	counting := newCountingBucket(f.bkt)
	rd := f.reader(t, counting)
	q := must(rd.Querier(tenantID, f.blocks, 0, math.MaxInt64))
	require.Zero(t, counting.count("get"))

	counting.gate = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := dump(q.Select(ctx, true, nil, everything))
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, errkind.Canceled, errkind.Of(err))
	close(counting.gate)

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
}

func TestNeighbouringChunksShareAFetch(t *testing.T) {
	f := &fixture{bkt: bucket.NewInMemory()}
	f.add(t, writeBlock(t, rand.New(rand.NewPCG(1, 5)), t.TempDir(), 60, 0, 12_000, 10))
	counting := newCountingBucket(f.bkt)
	q := must(f.reader(t, counting).Querier(tenantID, f.blocks, 0, 12_000))
	_, err := dump(q.Select(t.Context(), true, nil, everything))
	require.NoError(t, err)
	require.NoError(t, q.Close())
	size := len(readAll(t, f.bkt, segmentKey(tenantID, f.blocks[0].ULID, 0)))
	require.Greater(t, size, 4*minWindow, "the block is too small to show anything")
	require.Equal(t, 1, counting.count("get"))
	require.LessOrEqual(t, counting.count("range"), 3+size/(2*minWindow))
}

func TestConfig(t *testing.T) {
	var cfg Config
	cfg.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	require.Equal(t, int64(256<<20), cfg.IndexCacheBytes)
	require.NoError(t, cfg.Validate())
	_, err := New(Config{IndexCacheBytes: -1}, bucket.NewInMemory(), nopLog, nil)
	require.ErrorContains(t, err, "index_cache_bytes")
}
