package replicate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
)

func TestSizes(t *testing.T) {
	require.EqualValues(t, entryBytes, unsafe.Sizeof(entry{}))
	require.EqualValues(t, replicaBytes, unsafe.Sizeof(replica{}))
	require.EqualValues(t, lifeBytes, unsafe.Sizeof(life{}))
}

// placementOf returns a placement in a cluster of three.
func placementOf(t testing.TB, tab *table) *placement {
	c := newCluster(t, 3, 1, "a", "b", "c")
	return tab.place(newTest(t, c, testConfig()).view(), 1000)
}

// The table against a map: what is evicted is gone for good, and no handle ever names another series.
func TestTableModel(t *testing.T) {
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		var total atomic.Int64
		tab := newTable("t", 3, &total)
		p := placementOf(t, tab)
		given := map[handle]string{}
		present := map[string]handle{}
		minute := uint32(1000)
		for round := range 40 {
			switch rnd.IntN(6) {
			case 0:
				minute += uint32(rnd.IntN(20))
			case 1:
				tab.shrink(minute)
			case 2:
				tab.mu.Lock()
				tab.evict(minute, func(age int) bool { return age > 5 })
				tab.mu.Unlock()
			}
			tab.mu.Lock()
			for range rnd.IntN(400) {
				l := labels.FromStrings("i", fmt.Sprint(rnd.IntN(2000)), "pad", strings.Repeat("x", rnd.IntN(2)*50))
				h := tab.add(l, minute, p)
				if name := given[h]; name != "" {
					require.Equal(t, name, l.String())
				}
				given[h] = l.String()
				present[l.String()] = h
			}
			if round%8 != 7 {
				tab.mu.Unlock()
				continue
			}
			bytes, used := int64(len(tab.index)*indexBytes), 0
			for _, s := range tab.slabs {
				if s != nil {
					bytes += tab.slabBytes()
				}
			}
			for h, name := range given {
				e, replicas := tab.find(h)
				if e == nil {
					continue
				}
				used++
				require.Equal(t, name, e.labels.String())
				require.Equal(t, present[name], h)
				require.Len(t, replicas, 3)
				require.Equal(t, h, tab.search(e.hash, e.labels))
				bytes += int64(labelBytes(e.labels))
			}
			require.Equal(t, tab.used, used)
			require.Equal(t, tab.bytes, bytes)
			require.Equal(t, total.Load(), bytes)
			tab.mu.Unlock()
		}
		tab.close()
		require.Zero(t, total.Load())
		require.Zero(t, tab.add(series(1), minute, p))
	}
}

func TestLongUnseenLeavesFirst(t *testing.T) {
	var total atomic.Int64
	tab := newTable("t", 3, &total)
	p := placementOf(t, tab)
	add := func(from, n int, minute uint32) (out []handle) {
		tab.mu.Lock()
		defer tab.mu.Unlock()
		for i := from; i < from+n; i++ {
			out = append(out, tab.add(series(i), minute, p))
		}
		return out
	}
	old := add(0, 1000, 10)
	young := add(1000, 1000, 30)
	tab.shrink(31)
	tab.shrink(31)
	gone := 0
	for _, h := range old {
		if _, ok := tab.labelsOf(h); !ok {
			gone++
		}
	}
	require.Greater(t, gone, 800)
	for _, h := range young {
		_, ok := tab.labelsOf(h)
		require.True(t, ok)
	}
	// What was not seen for half an hour makes room by itself.
	add(2000, 3000, 70)
	for _, h := range young {
		_, ok := tab.labelsOf(h)
		require.False(t, ok)
	}
}

// All tables together keep to the budget; the largest gives way.
func TestTablesKeepTheBudget(t *testing.T) {
	c := newCluster(t, 3, 1, "a", "b", "c")
	cfg := testConfig()
	cfg.TableBytes = 400 << 10
	r := newTest(t, c, cfg)
	var res duramenpb.PushResult
	small := batch(0, 20, 1)
	require.NoError(t, r.Push(t.Context(), "small", small, &res))
	byRefs(small, &res)
	for i := range 40 {
		require.NoError(t, r.Push(t.Context(), "large", batch(i*100, 100, 1), &res))
		require.Equal(t, 100, res.Floats)
		require.LessOrEqual(t, r.tables.bytes.Load(), cfg.TableBytes)
	}
	require.NoError(t, r.Push(t.Context(), "small", small, &res))
	require.Empty(t, res.Stale)

	// Without any room everything still works, by labels.
	cfg.TableBytes = 0
	r = newTest(t, c, cfg)
	b := batch(0, 50, 2)
	require.NoError(t, r.Push(t.Context(), "t", b, &res))
	require.Equal(t, 50, res.Floats)
	byRefs(b, &res)
	require.NoError(t, r.Push(t.Context(), "t", b, &res))
	require.Len(t, res.Stale, 50)
	require.EqualValues(t, 3*lifeBytes, r.tables.bytes.Load())
	c.nothingWrong()
}

func TestIdleTenantsAreDropped(t *testing.T) {
	ts := tables{budget: 1 << 20, byID: map[string]*table{}}
	idle := ts.get("idle", 3, 100)
	idle.mu.Lock()
	idle.add(series(1), 100, placementOf(t, idle))
	idle.mu.Unlock()
	require.Positive(t, ts.bytes.Load())
	ts.get("busy", 3, 131)
	require.Zero(t, ts.bytes.Load())
	require.NotSame(t, idle, ts.get("idle", 3, 131))
}

// Handles are given out, used, and evicted by many at a time. Run with the race detector.
func TestTableConcurrently(t *testing.T) {
	c := newCluster(t, 3, 2, "a", "b", "c")
	cfg := testConfig()
	cfg.TableBytes = 200 << 10
	r := newTest(t, c, cfg)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 9))
			var last duramenpb.PushResult
			var sent *duramenpb.Batch
			for n := range 60 {
				var res duramenpb.PushResult
				if sent != nil && rnd.IntN(3) > 0 {
					byRefs(sent, &last)
				} else {
					sent = batch(rnd.IntN(400), 50, 0)
				}
				for i := range sent.Floats {
					sent.Floats[i].T = int64(g*1000 + n)
				}
				if err := r.Push(context.Background(), "t", sent, &res); err != nil {
					t.Error(err)
				}
				if res.Floats+len(res.Stale) != 50 {
					t.Errorf("%d stored, %d stale", res.Floats, len(res.Stale))
				}
				if len(res.Stale) > 0 {
					sent = nil
				} else {
					last = res
				}
				if g == 0 && n%10 == 5 {
					for _, p := range c.peers {
						p.reopen(rnd.Uint64())
					}
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, r.Close())
	c.nothingWrong()
}

// An answer of an earlier life of a member's TSDB that comes late does not make its references count.
func TestLateAnswerOfAnEarlierLife(t *testing.T) {
	c := newCluster(t, 3, 1, "a", "b", "c")
	r := newTest(t, c, testConfig())
	b := c.peers["ing-b-0"]
	var late []func()
	b.serve = func(_ context.Context, section []byte, done func(*duramenpb.PushResult, error)) {
		res, err := b.push(section)
		late = append(late, func() { done(res, err) })
	}
	var res duramenpb.PushResult
	in := batch(0, 10, 1)
	require.NoError(t, r.Push(t.Context(), "t", in, &res))
	b.reopen(99)
	b.serve = nil
	byRefs(in, &res)
	require.NoError(t, r.Push(t.Context(), "t", in, &res))
	late[0]()
	waitIdle(t, r)
	require.Zero(t, b.byReference)
	sent := b.sent.Load()
	require.NoError(t, r.Push(t.Context(), "t", in, &res))
	waitIdle(t, r)
	require.Equal(t, 10, b.byReference)
	require.Equal(t, sent+1, b.sent.Load(), "nothing was stale")
	c.nothingWrong()
}

// Whoever takes the place of a member that fails is in a zone that has none of the other replicas.
func TestSubstitute(t *testing.T) {
	c := newCluster(t, 3, 2, "a", "b", "c", "d")
	r := newTest(t, c, testConfig())
	v := r.view()
	m := func(id string) *member { return v.members[r.numbers[id]] }
	n := func(ids ...string) (out []uint32) {
		for _, id := range ids {
			out = append(out, r.numbers[id])
		}
		return out
	}
	gone := m("ing-a-0")
	have := n("ing-a-0", "ing-b-0", "ing-c-0")
	require.Nil(t, substitute(gone, have, n("ing-b-1", "ing-c-1", "ing-b-0"), v, v))
	require.Equal(t, m("ing-a-1"), substitute(gone, have, n("ing-b-1", "ing-c-0", "ing-a-1"), v, v))
	require.Equal(t, m("ing-d-0"), substitute(gone, have, n("ing-b-1", "ing-c-1", "ing-d-0"), v, v))
	require.Nil(t, substitute(gone, have, have, v, v))
}

// A hit of the table allocates nothing.
func TestHitsDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	c := newCluster(t, 3, 1, "a", "b", "c")
	r := newTest(t, c, testConfig())
	for _, p := range c.peers {
		p.serve = accept(p.incarnation)
	}
	b := batch(0, 2000, 1)
	var res duramenpb.PushResult
	require.NoError(t, r.Push(t.Context(), "t", b, &res))
	byRefs(b, &res)
	perPush := testing.AllocsPerRun(100, func() {
		if err := r.Push(t.Context(), "t", b, &res); err != nil || len(res.Stale) > 0 {
			t.Error(err, len(res.Stale))
		}
	})
	require.Less(t, perPush, 40.0, "that is per push of 2000 samples, none per sample")
}

// accept answers with success without looking at more of a section than its number of samples, which has to be 2000.
func accept(incarnation uint64) func(context.Context, []byte, func(*duramenpb.PushResult, error)) {
	refs := make([]uint64, 2000)
	for i := range refs {
		refs[i] = uint64(i + 1)
	}
	var mu sync.Mutex
	res := &duramenpb.PushResult{}
	return func(_ context.Context, _ []byte, done func(*duramenpb.PushResult, error)) {
		mu.Lock()
		defer mu.Unlock()
		*res = duramenpb.PushResult{Incarnation: incarnation, Refs: refs, Floats: len(refs)}
		done(res, nil)
	}
}
