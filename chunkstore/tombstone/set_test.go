package tombstone

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

func deletion(id uint64, mint, maxt int64, selectors ...string) manifest.Deletion {
	return manifest.Deletion{ID: id, Selectors: selectors, MinTime: mint, MaxTime: maxt, CreatedAt: 1 << 40}
}

func set(t testing.TB, ds ...manifest.Deletion) *Set {
	t.Helper()
	s, err := New(ds)
	require.NoError(t, err)
	return s
}

func TestIntervals(t *testing.T) {
	s := set(t,
		deletion(1, 10, 20, `up{job="a"}`, `{job="b"}`),
		deletion(2, 21, 30, `up`),
		deletion(3, 40, 50, `{__name__=~"u.*",zone=""}`),
		deletion(4, math.MinInt64, 5, `{__name__=~".+",job!="c"}`),
		deletion(5, 60, 60, `{job="a",instance=~"1|2"}`),
	)
	for lset, want := range map[string]tombstones.Intervals{
		`up job a`:            {{Mint: math.MinInt64, Maxt: 5}, {Mint: 10, Maxt: 30}, {Mint: 40, Maxt: 50}},
		`up job b zone x`:     {{Mint: math.MinInt64, Maxt: 5}, {Mint: 10, Maxt: 30}},
		`down job b`:          {{Mint: math.MinInt64, Maxt: 5}, {Mint: 10, Maxt: 20}},
		`down job c`:          nil,
		`down job a instance`: nil,
	} {
		var name, job, zone string
		_, _ = fmt.Sscanf(lset, "%s job %s zone %s", &name, &job, &zone)
		got := s.Intervals(labels.FromStrings("__name__", name, "job", job, "zone", zone))
		if lset == `down job a instance` {
			got = s.In(60, 60).Intervals(labels.FromStrings("__name__", name, "job", job))
		}
		require.Equal(t, want, got, lset)
	}
	require.Equal(t, tombstones.Intervals{{Mint: 60, Maxt: 60}}, s.In(60, 70).Intervals(labels.FromStrings("job", "a", "instance", "2")))
}

func TestPartsOfASet(t *testing.T) {
	s := set(t, deletion(1, 10, 20, "a", "b"), deletion(2, 30, 40, "a"), deletion(3, 30, 90, "c"))
	require.Same(t, s, s.In(0, 100))
	require.Nil(t, s.In(21, 29))
	lset := labels.FromStrings("__name__", "a")
	require.Len(t, s.In(20, 20).SelectorsOf([]labels.Labels{lset}), 1)
	require.Len(t, s.SelectorsOf([]labels.Labels{lset, labels.FromStrings("__name__", "c")}), 2, "a once")
	require.Equal(t, tombstones.Intervals{{Mint: 30, Maxt: 40}}, s.In(21, 30).Intervals(lset))

	id := ulid.ULID{0, 0, 0, 0, 0, 1}
	b := manifest.Block{ULID: id, MinTime: 0, MaxTime: 31, Sources: []ulid.ULID{id}, Deleted: 2}
	require.Nil(t, s.Of(&b).Intervals(lset))
	require.NotNil(t, s.Of(&b).Intervals(labels.FromStrings("__name__", "c")))
	b.Deleted = 3
	require.Nil(t, s.Of(&b))

	require.Nil(t, set(t))
	var none *Set
	require.True(t, none.Empty())
	require.False(t, s.Empty())
	require.Nil(t, none.Of(&b))
	require.Nil(t, none.In(0, 1))
	require.Nil(t, none.SelectorsOf([]labels.Labels{lset}))
	require.Nil(t, none.Intervals(lset))
}

func TestWhatCannotBeReadHidesNothingInSilence(t *testing.T) {
	_, err := New([]manifest.Deletion{deletion(1, 0, 1, "up"), deletion(7, 0, 1, "up", "sum(up)")})
	require.Equal(t, errkind.Corrupt, errkind.Of(err))
	require.ErrorContains(t, err, `selector "sum(up)" of deletion 7`)
}

// TestIntervalsAreThoseOfEachSelector compares with a walk over all selectors.
func TestIntervalsAreThoseOfEachSelector(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	values := []string{"", "a", "b", "c"}
	for range 100 {
		var ds []manifest.Deletion
		for id := range r.Uint64N(8) {
			d := deletion(id+1, r.Int64N(50), 0)
			d.MaxTime = d.MinTime + r.Int64N(10)
			for range 1 + r.IntN(3) {
				d.Selectors = append(d.Selectors, fmt.Sprintf(`{__name__%s"%s",x%s"%s",y=~".*"}`,
					[]string{"=", "=~", "!="}[r.IntN(3)], append(values[1:], "a|b", "c|", "(a|a|c)")[r.IntN(6)],
					[]string{"=", "!~", "=~"}[r.IntN(3)], append(values, "a|c", "b|")[r.IntN(6)]))
			}
			ds = append(ds, d)
		}
		s := set(t, ds...)
		lset := labels.FromStrings("__name__", values[1+r.IntN(3)], "x", values[r.IntN(4)])
		gaps := s.Intervals(lset)
		meant := make([]bool, len(ds))
		for i := range ds {
			selectors, err := Matchers(&ds[i])
			require.NoError(t, err)
			for _, matchers := range selectors {
				meant[i] = meant[i] || matches(matchers, lset)
			}
			require.Equal(t, meant[i], slices.Contains(s.Meaning(lset, nil), i), "%v of %v", lset, ds[i])
		}
		numbers := s.Meaning(lset, []int{9})
		require.Equal(t, 9, numbers[0], "what was there stays")
		require.IsIncreasing(t, append([]int{-1}, numbers[1:]...))
		for at := range int64(70) {
			want := false
			for i := range ds {
				want = want || meant[i] && ds[i].MinTime <= at && at <= ds[i].MaxTime
			}
			require.Equal(t, want, tombstones.Interval{Mint: at, Maxt: at}.IsSubrange(gaps), "%v at %d of %v", lset, at, ds)
		}
	}
}

// thousand is a thousand deletions of other metrics than lset's.
func thousand(t testing.TB) (s *Set, lset labels.Labels) {
	t.Helper()
	var ds []manifest.Deletion
	for id := range uint64(1000) {
		ds = append(ds, deletion(id+1, 0, 10, fmt.Sprintf(`metric_%d{job="a"}`, id), fmt.Sprintf(`{__name__=~"other_%d|more_%d"}`, id, id)))
	}
	return set(t, ds...), labels.FromStrings("__name__", "other", "job", "a", "instance", "x")
}

// BenchmarkMeaning asks about a series among a thousand deletions of other metrics.
func BenchmarkMeaning(b *testing.B) {
	s, lset := thousand(b)
	var numbers []int
	b.ReportAllocs()
	for b.Loop() {
		if numbers = s.Meaning(lset, numbers[:0]); len(numbers) > 0 {
			b.Fatal("meant")
		}
	}
}

// BenchmarkIntervals asks about a series among a thousand deletions of other metrics.
func BenchmarkIntervals(b *testing.B) {
	s, lset := thousand(b)
	b.ReportAllocs()
	for b.Loop() {
		if s.Intervals(lset) != nil {
			b.Fatal("hidden")
		}
	}
}
