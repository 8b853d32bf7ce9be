package loadgen

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestQuantiles compares the buckets with sorting.
func TestQuantiles(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var l Latency
	require.Zero(t, l.Quantile(0.5))
	var all []time.Duration
	for range 10_000 {
		d := time.Duration(rnd.ExpFloat64() * float64(3*time.Millisecond))
		all = append(all, d)
		l.add(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999} {
		exact := all[int(q*float64(len(all)))]
		got := l.Quantile(q)
		require.GreaterOrEqual(t, got, exact)
		require.LessOrEqual(t, float64(got), 1.016*float64(exact)+1, "quantile %v", q)
	}
	require.Equal(t, all[len(all)-1], l.Quantile(1))
}

func TestBucketsCoverAllDurations(t *testing.T) {
	last := time.Duration(-1)
	for b := range bucketOf(1<<63-1) + 1 {
		require.Greater(t, upper(b), last)
		require.Equal(t, b, bucketOf(upper(b)))
		require.Equal(t, b, bucketOf(last+1), "no gaps")
		last = upper(b)
	}
	require.Equal(t, time.Duration(1<<63-1), last)
	require.Zero(t, bucketOf(-5))
}

func TestWatch(t *testing.T) {
	done, err := Watch(os.Getpid())
	require.NoError(t, err)
	u, err := done()
	require.NoError(t, err)
	require.Positive(t, u.RSS)
	require.GreaterOrEqual(t, u.Peak, int64(1<<20))
	_, err = Watch(1 << 30)
	require.ErrorIs(t, err, os.ErrNotExist)
}
