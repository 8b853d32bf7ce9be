package distributor

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
)

func randomKey(rnd *rand.Rand) key { return key{rnd.Uint64(), rnd.Uint64()} }

func findRef(c *cache, k key) (uint64, bool) {
	c.rlock()
	defer c.runlock()
	if e := c.find(k); e != nil {
		return e.ref, true
	}
	return 0, false
}

func TestEntryTakesFortyBytes(t *testing.T) {
	require.EqualValues(t, entryBytes, unsafe.Sizeof(entry{}))
}

func TestCacheAgreesWithAMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	var bytes atomic.Int64
	c := newCache(&bytes)
	v := c.view(1)
	model := map[key]uint64{}
	var keys []key
	for i := range 15_000 {
		k := randomKey(rnd)
		k.lo &= 0xff // Long chains.
		if len(keys) > 0 && rnd.IntN(3) == 0 {
			k = keys[rnd.IntN(len(keys))]
		}
		keys = append(keys, k)
		model[k] = uint64(i)
		c.put(k, v, uint64(i), 0, 0)
	}
	for k, ref := range model {
		got, ok := findRef(c, k)
		require.True(t, ok)
		require.Equal(t, ref, got)
	}
	for range 1000 {
		_, ok := findRef(c, randomKey(rnd))
		require.False(t, ok)
	}
	n, size := c.size()
	require.Equal(t, len(model), n)
	require.Equal(t, bytes.Load(), size)
	c.close()
	require.Zero(t, bytes.Load())
	c.put(keys[0], v, 1, 0, 0)
	require.Zero(t, bytes.Load(), "a closed cache takes nothing")
}

func TestCacheTakesAHundredBytesASeriesAtMost(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 2))
	var bytes atomic.Int64
	c := newCache(&bytes)
	v := c.view(1)
	for i := 1; i <= 100_000; i++ {
		c.put(randomKey(rnd), v, 1, 0, 0)
		if i > 10_000 && i%10_000 == 0 {
			require.LessOrEqual(t, bytes.Load()/int64(i), int64(108), "%d series", i)
		}
	}
}

func TestCacheForgetsTheUnseenFirst(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	var bytes atomic.Int64
	c := newCache(&bytes)
	v := c.view(1)
	put := func(n int, minute uint32) (keys []key) {
		for range n {
			keys = append(keys, randomKey(rnd))
			c.put(keys[len(keys)-1], v, 1, 0, minute)
		}
		return keys
	}
	count := func(keys []key) (n int) {
		for _, k := range keys {
			if _, ok := findRef(c, k); ok {
				n++
			}
		}
		return n
	}
	old := put(10_000, 100)
	young := put(10_000, 120)
	before := bytes.Load()
	fresh := put(10_000, 131) // More than half an hour after old.
	require.Equal(t, 10_000, count(young))
	require.Equal(t, 10_000, count(fresh))
	require.Less(t, count(old), 5_000, "growing shards leave the unseen behind")
	require.LessOrEqual(t, bytes.Load(), before)

	for range 3 * cacheShards {
		c.shrink(131)
	}
	require.Less(t, bytes.Load(), before/2)
	require.Greater(t, count(fresh), count(young)*2, "the older of the seen leave first")
}

func TestTheLargestCacheGivesWay(t *testing.T) {
	d, _ := newTest(t, pusherFunc(acceptAll), openLimits())
	d.tenants.budget = 1 << 20
	rnd := rand.New(rand.NewPCG(4, 4))
	small, large := d.tenants.get("small", 5), d.tenants.get("large", 5)
	var kept []key
	for range 2000 {
		kept = append(kept, randomKey(rnd))
		small.cache.put(kept[len(kept)-1], small.cache.view(1), 1, 0, 5)
	}
	for range 60_000 {
		large.cache.put(randomKey(rnd), large.cache.view(1), 1, 0, 5)
		d.tenants.keepBudget(5)
		require.LessOrEqual(t, d.tenants.bytes.Load(), d.tenants.budget)
	}
	for _, k := range kept {
		_, ok := findRef(small.cache, k)
		require.True(t, ok)
	}
	n, _ := large.cache.size()
	require.Greater(t, n, 5000, "the large tenant uses the rest")
}

func TestIdleTenantsAreForgotten(t *testing.T) {
	d, reg := newTest(t, pusherFunc(acceptAll), openLimits())
	s := d.tenants.get("idle", 100)
	s.received.Inc()
	s.cache.put(key{1, 1}, s.cache.view(1), 1, 0, 100)
	d.tenants.get("busy", 120)
	require.Equal(t, 2, d.tenants.count())
	d.tenants.get("busy", 131)
	require.Equal(t, 1, d.tenants.count())
	require.Zero(t, d.tenants.bytes.Load())
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				require.NotEqual(t, "idle", l.GetValue(), f.GetName())
			}
		}
	}
}

func TestViewMovesWithEpochAndIncarnation(t *testing.T) {
	c := newCache(new(atomic.Int64))
	first := c.view(1)
	require.Same(t, first, c.view(1))
	second := c.view(2)
	require.NotEqual(t, first.gen, second.gen)
	require.NotEqual(t, second.gen, c.view(1).gen, "a returning epoch is a new gen")

	v := c.view(1)
	learnt := c.learn(v, 10)
	require.EqualValues(t, 10, learnt.incarnation)
	require.NotEqual(t, v.life, learnt.life)
	require.Equal(t, learnt.life, c.view(1).life)
	require.Nil(t, c.learn(v, 9), "an answer that overtook a newer life's")
	require.Equal(t, learnt.life, c.learn(v, 10).life, "two requests learn of the same life")
	require.Nil(t, c.learn(c.view(1), 0))
	again := c.learn(c.view(1), 11)
	back := c.learn(c.view(1), 10)
	require.NotEqual(t, learnt.life, back.life, "references of a life that ended and came back are not used")
	require.NotEqual(t, again.life, back.life)
}

func TestRefusalsAreCached(t *testing.T) {
	c := newCache(new(atomic.Int64))
	v := c.view(1)
	c.refuse(key{1, 2}, v, duramenpb.ReasonDuplicateLabel, 0)
	c.refuse(key{3, 4}, v, duramenpb.ReasonTooOld, 0)
	c.rlock()
	defer c.runlock()
	e := c.find(key{1, 2})
	require.NotNil(t, e)
	require.Equal(t, lifeRefused, e.life)
	require.Equal(t, duramenpb.ReasonDuplicateLabel, labelReasons[e.ref])
	require.Nil(t, c.find(key{3, 4}), "what depends on the ingester is not a verdict on labels")
}

func TestCacheUnderConcurrency(t *testing.T) {
	c := newCache(new(atomic.Int64))
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 9))
			for i := range 3000 {
				k := key{rnd.Uint64N(500) << 55, rnd.Uint64N(500) + 1}
				v := c.view(uint64(i / 1000))
				c.put(k, v, k.lo, 0, uint32(i/100))
				c.rlock()
				if e := c.find(k); e != nil {
					e.seen.Store(uint32(i / 100))
					if e.ref != k.lo {
						t.Errorf("key %v has ref %d", k, e.ref)
					}
				}
				c.runlock()
				if i%500 == 0 {
					c.shrink(uint32(i / 100))
				}
			}
		})
	}
	wg.Wait()
}
