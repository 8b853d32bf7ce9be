package oracle

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/chunkstore/reader"
	"github.com/duramendb/duramen/internal/errkind"
)

// readFaults are those that a reader meets.
var readFaults = []faultbucket.Fault{
	faultbucket.Before, faultbucket.Stall, faultbucket.Truncate, faultbucket.BreakOff, faultbucket.Flip, faultbucket.Missing,
}

// everything is the query for all samples of a world.
func (w *world) everything(reading int) ask {
	return ask{
		mint: w.MinTime, maxt: w.MaxTime, sorted: true, reading: reading,
		matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "z", ".+")},
	}
}

// answer asks the store.
func (w *world) answer(ctx context.Context, t testing.TB, st store, a ask) ([][]byte, error) {
	t.Helper()
	q, err := st.Querier(tenantID, w.blocks, nil, a.mint, a.maxt)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	return a.read(q.Select(ctx, a.sorted, a.selectHints(), a.copied()...))
}

// want asks the reference.
func (w *world) want(t testing.TB, a ask) [][]byte {
	t.Helper()
	reference := w.reference(t, a.mint, a.maxt)
	defer func() { require.NoError(t, reference.Close()) }()
	want, err := a.read(reference.Select(t.Context(), a.sorted, a.selectHints(), a.copied()...))
	require.NoError(t, err)
	return want
}

// multiBlockWorld is a world with several blocks of some size.
func multiBlockWorld(t testing.TB, seed uint64) *world {
	t.Helper()
	for ; ; seed++ {
		random, err := blockgen.NewRandom(rand.New(rand.NewPCG(seed, 1)))
		require.NoError(t, err)
		if n := len(random.Labels); len(random.Blocks) > 1 && n > 10 && n < 300 {
			return newWorld(t, seed)
		}
	}
}

// TestAFaultOnceGivesTheAnswerOrAnError strikes each operation of a query in turn. The next query finds a healthy bucket:
// whatever the fault left in the caches, it is right.
func TestAFaultOnceGivesTheAnswerOrAnError(t *testing.T) {
	for _, fault := range readFaults {
		t.Run(fault.String(), func(t *testing.T) {
			t.Parallel()
			w := multiBlockWorld(t, uint64(fault))
			defer w.close(t)
			a := w.everything(expanded)
			want, failures := w.want(t, a), 0
			for n := 0; ; n++ {
				ctx, cancel := context.WithCancel(t.Context())
				faulty := faultbucket.New(w.bkt, func(op faultbucket.Op) faultbucket.Fault {
					if op.N != n {
						return faultbucket.None
					}
					if fault == faultbucket.Stall {
						cancel() // the time of the query is up
					}
					return fault
				})
				disk := ""
				if n%2 == 0 {
					disk = t.TempDir()
				}
				st, closeStore := newStore(t, faulty, setup{disk: disk})
				got, err := w.answer(ctx, t, st, a)
				if err == nil {
					requireEqual(t, want, got, "%s at operation %d", fault, n)
				} else {
					failures++
					if fault == faultbucket.Stall {
						require.ErrorIs(t, err, context.Canceled)
					} else {
						requireNamed(t, w, err)
					}
				}
				struck := len(faulty.Ops()) > n
				faulty.SetPlan(nil)
				got, err = w.answer(t.Context(), t, st, a)
				require.NoError(t, err, "%s at operation %d: the next query", fault, n)
				requireEqual(t, want, got, "%s at operation %d: the next query", fault, n)
				closeStore()
				cancel()
				if !struck {
					require.Greater(t, n, 2*len(w.blocks), "a directory and chunks of each block at least")
					break
				}
			}
			switch fault {
			case faultbucket.Truncate, faultbucket.Flip: // what arrives damaged is read again
				require.Zero(t, failures)
			case faultbucket.BreakOff: // the same, where the reader knows how much is missing
			default:
				require.Positive(t, failures)
			}
		})
	}
}

// requireNamed: an error names the tenant and one of the blocks.
func requireNamed(t testing.TB, w *world, err error) {
	t.Helper()
	require.ErrorContains(t, err, tenantID)
	for _, b := range w.blocks {
		if strings.Contains(err.Error(), b.ULID.String()) {
			return
		}
	}
	t.Fatalf("the error names no block: %v", err)
}

// TestAFaultThatStays strikes all reads of one object.
func TestAFaultThatStays(t *testing.T) {
	kinds := map[faultbucket.Fault]errkind.Kind{
		faultbucket.Before: errkind.Unavailable, faultbucket.Truncate: errkind.Unavailable,
		faultbucket.BreakOff: errkind.Unavailable, faultbucket.Flip: errkind.Corrupt, faultbucket.Missing: errkind.Unavailable,
	}
	w := multiBlockWorld(t, 77)
	defer w.close(t)
	a := w.everything(asTheyCome)
	want := w.want(t, a)
	block := w.blocks[len(w.blocks)/2].ULID.String()
	for fault, kind := range kinds {
		for _, object := range []string{"duramen.idx", "chunks/000001"} {
			faulty := faultbucket.New(w.bkt, func(op faultbucket.Op) faultbucket.Fault {
				if strings.Contains(op.Key, block) && strings.HasSuffix(op.Key, object) && op.Method != "Put" {
					return fault
				}
				return faultbucket.None
			})
			st, closeStore := newStore(t, faulty, setup{})
			got, err := w.answer(t.Context(), t, st, a)
			if err == nil {
				// A sidecar that cannot be read is built again and read from where it was built.
				require.Equal(t, "duramen.idx", object, "%s", fault)
				requireEqual(t, want, got, "%s of %s", fault, object)
			} else {
				requireNamed(t, w, err)
				require.Equal(t, kind, errkind.Of(err), "%s of %s: %v", fault, object, err)
				if fault == faultbucket.Missing {
					require.ErrorIs(t, err, reader.ErrGone)
				}
			}
			faulty.SetPlan(nil)
			got, err = w.answer(t.Context(), t, st, a)
			require.NoError(t, err, "%s of %s: the bucket is well again", fault, object)
			requireEqual(t, want, got, "%s of %s: the bucket is well again", fault, object)
			closeStore()
		}
	}
}

// TestSeededFaults: many queries of a bucket of which one operation in ten fails somehow.
func TestSeededFaults(t *testing.T) {
	seed := faultbucket.Seed(t)
	failed, right := 0, 0
	for i := range uint64(12) {
		w := newWorld(t, seed%1000+i)
		faulty := faultbucket.New(w.bkt, faultbucket.Seeded(seed+i, 0.1,
			faultbucket.Before, faultbucket.Truncate, faultbucket.BreakOff, faultbucket.Flip, faultbucket.Missing))
		st, closeStore := newStore(t, faulty, setup{noMemory: i%2 == 0})
		r := rand.New(rand.NewPCG(seed, i))
		for range 10 {
			a := w.randomAsk(r)
			a.sorted = true
			got, err := w.answer(t.Context(), t, st, a)
			if err != nil {
				failed++
				requireNamed(t, w, err)
				continue
			}
			right++
			requireEqual(t, w.want(t, a), got, "world %d: %s", seed%1000+i, a)
		}
		closeStore()
		w.close(t)
	}
	t.Logf("%d queries failed, %d were right", failed, right)
	require.Positive(t, right)
}

// TestABlockDeletedBetweenPlanAndRead deletes a block's objects when the n-th operation of a query begins. What is gone
// says so, by name.
func TestABlockDeletedBetweenPlanAndRead(t *testing.T) {
	gone := 0
	for n := range 40 {
		w := multiBlockWorld(t, uint64(n%3))
		victim := w.blocks[n%len(w.blocks)].ULID.String()
		deleted := false
		faulty := faultbucket.New(w.bkt, func(op faultbucket.Op) faultbucket.Fault {
			if op.N == n {
				deleted = true
				deleteBlock(t, w.bkt, victim)
			}
			return faultbucket.None
		})
		a := w.everything(asTheyCome)
		want := w.want(t, a)
		st, closeStore := newStore(t, faulty, setup{noMemory: true})
		got, err := w.answer(t.Context(), t, st, a)
		if err == nil {
			requireEqual(t, want, got, "deleted at operation %d", n)
		} else {
			gone++
			require.True(t, deleted)
			require.ErrorIs(t, err, reader.ErrGone, "deleted at operation %d", n)
			require.ErrorContains(t, err, victim)
			require.Equal(t, errkind.Unavailable, errkind.Of(err))
		}
		closeStore()
		w.close(t)
		if !deleted {
			break
		}
	}
	require.Positive(t, gone)
}

func deleteBlock(t testing.TB, bkt bucket.Bucket, id string) {
	t.Helper()
	var keys []string
	require.NoError(t, bkt.List(context.Background(), tenantID+"/"+id+"/", true, func(o bucket.Object) error {
		keys = append(keys, o.Key)
		return nil
	}))
	require.NoError(t, bkt.Delete(context.Background(), keys...))
}

// TestLateListings: a block of a peer has no sidecar, and the listing that tells its files lags behind. A sidecar that
// knows a part of the files would answer short.
func TestLateListings(t *testing.T) {
	for seed := range uint64(6) {
		w := multiBlockWorld(t, seed)
		inner := bucket.NewInMemory()
		faulty := faultbucket.New(inner, nil)
		for i, b := range w.Blocks {
			w.blocks[i].SidecarBytes, w.blocks[i].DirectoryBytes = 0, 0
			for _, f := range b.Files {
				if f.Name == "duramen.idx" {
					continue
				}
				if strings.HasPrefix(f.Name, "chunks/") && seed%2 == 0 || seed%2 == 1 && f.Name > "chunks/000001" {
					faulty.DelayListings(1)
				} else {
					faulty.DelayListings(0)
				}
				key := tenantID + "/" + b.Entry.ULID.String() + "/" + f.Name
				require.NoError(t, faulty.Put(t.Context(), key, strings.NewReader(string(f.Data)), int64(len(f.Data))))
			}
		}
		st, closeStore := newStore(t, faulty, setup{})
		a := w.everything(asTheyCome)
		want := w.want(t, a)
		for range 3 {
			got, err := w.answer(t.Context(), t, st, a)
			if err != nil {
				requireNamed(t, w, err)
				continue
			}
			requireEqual(t, want, got, "seed %d", seed)
		}
		closeStore()
		w.close(t)
	}
}
