package ring

import (
	"testing"
)

// BenchmarkNew is what a change of a table of 300 ingesters costs, once a heartbeat or so.
func BenchmarkNew(b *testing.B) {
	entries := entriesOf(cluster(100, "a", "b", "c"))
	r := New(Config{}, entries, start)
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			New(Config{}, entries, start)
		}
	})
	b.Run("next", func(b *testing.B) {
		for b.Loop() {
			r.Next(entries, start)
		}
	})
}

// BenchmarkTable is what the first question after a change of placement costs.
func BenchmarkTable(b *testing.B) {
	l := New(Config{}, entriesOf(cluster(100, "a", "b", "c")), start).layout
	for b.Loop() {
		l.compute()
	}
}

func BenchmarkReplicas(b *testing.B) {
	r := New(Config{}, entriesOf(cluster(100, "a", "b", "c")), start)
	for name, shard := range map[string]int{"all": 0, "shard of 30": 30} {
		b.Run(name, func(b *testing.B) {
			p := r.Tenant("t", shard)
			p.Replicas(0)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p.Replicas(uint16(i))
			}
		})
	}
}

func BenchmarkReadZones(b *testing.B) {
	r := New(Config{}, entriesOf(cluster(100, "a", "b", "c")), start)
	for b.Loop() {
		r.ReadZones()
	}
}
