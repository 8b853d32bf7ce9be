package plan

import (
	"fmt"
	"testing"
	"time"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// BenchmarkMake plans for tenants that have everything done but the last day, and for one in which nothing is.
func BenchmarkMake(b *testing.B) {
	for _, n := range []int{400, 10_000} {
		w := new(world)
		for day := range n - 40 {
			w.add(float64(24*day), float64(24*day+24), wholeDay)
		}
		for slot := range 12 {
			w.replicas(float64(24*(n-40) + 2*slot))
		}
		b.Run(fmt.Sprintf("blocks=%d", len(w.m.Blocks)), func(b *testing.B) { benchmarkMake(b, &w.m) })
	}
	for _, through := range []uint64{0, 1000} {
		w := new(world)
		for day := range 400 {
			w.add(float64(24*day), float64(24*day+24), wholeDay, func(b *manifest.Block) { b.Deleted = through })
		}
		w.replicas(24 * 400)
		s := &simulation{m: &w.m, now: t0.Add(9600 * time.Hour).UnixMilli()}
		for range 1000 {
			s.delete(0, s.now)
		}
		b.Run(fmt.Sprintf("deletions=1000/through=%d", through), func(b *testing.B) { benchmarkMake(b, &w.m) })
	}
	w := new(world)
	for slot := range 3333 {
		w.replicas(float64(2 * slot))
	}
	b.Run(fmt.Sprintf("uncompacted=%d", len(w.m.Blocks)), func(b *testing.B) { benchmarkMake(b, &w.m) })
}

func benchmarkMake(b *testing.B, m *manifest.Manifest) {
	b.ReportAllocs()
	now := time.UnixMilli(m.Blocks[len(m.Blocks)-1].MaxTime).Add(5 * time.Hour)
	for b.Loop() {
		if p := Make(m, now, Limits{OutOfOrderWindow: 3 * time.Hour}); len(p.Jobs) == 0 {
			b.Fatal("no jobs")
		}
	}
}
