package plan

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

var update = flag.Bool("update", false, "write the printed plans in testdata anew")

// replicas lists three blocks of a slot, counted in hours from t0.
func (w *world) replicas(from float64, change ...func(*manifest.Block)) {
	for range 3 {
		w.add(from, from+2, change...)
	}
}

func merged(b *manifest.Block) { b.Level, b.Writer = 2, "compactor/x" }

func wholeDay(b *manifest.Block) {
	b.Level, b.Writer, b.Samples, b.Chunks, b.SizeBytes = 3, "compactor/x", 12*b.Samples, 12*b.Chunks, 12*b.SizeBytes
}

func samples(n uint64) func(*manifest.Block) { return func(b *manifest.Block) { b.Samples = n } }

// TestPrintedPlans compares what people see with testdata, in which it can be reviewed. Run with -update to write it anew.
func TestPrintedPlans(t *testing.T) {
	foreign := func(level int) func(*manifest.Block) {
		return func(b *manifest.Block) { b.Level, b.Writer = level, "" }
	}
	for name, tt := range map[string]struct {
		build        func(w *world)
		now, shipped float64
		limits       func(w *world, l *Limits)
	}{
		"healthy": {now: 31, shipped: 30, build: func(w *world) {
			w.add(-24, 0, wholeDay)
			w.add(0, 24, wholeDay)
			w.add(24, 26, merged)
			w.add(26, 28, merged)
			w.add(28, 30)
			w.replicas(30)
		}},
		"slots": {now: 9.5, shipped: 8, build: func(w *world) {
			w.add(0, 2, merged)
			w.replicas(2)
			w.replicas(4)
			w.add(4, 6, func(b *manifest.Block) { b.OutOfOrder = true }, samples(50))
			w.add(6, 8)
			w.replicas(8)
		}},
		"day": {now: 27.5, shipped: 26, build: func(w *world) {
			for slot := range 12 {
				w.add(float64(2*slot), float64(2*slot+2), merged)
			}
			w.add(20, 22, samples(100))
			w.replicas(24)
		}},
		"behind": {now: 80, shipped: -100, build: func(w *world) {
			for slot := range 36 {
				w.replicas(float64(2 * slot))
			}
		}},
		"late": {now: 24 * 9, shipped: 24 * 9, build: func(w *world) {
			old := func(b *manifest.Block) { b.AddedAt = t0.Add(30 * time.Hour).UnixMilli() }
			w.add(0, 24, wholeDay, old) // a week old: becomes one
			w.add(4, 6, samples(10), old)
			w.add(24, 48, wholeDay) // a little: once a day
			w.add(30, 32, samples(100_000))
			w.add(48, 72, wholeDay) // next to nothing: stays
			w.add(50, 52, samples(10))
			w.add(72, 96, wholeDay) // many at once
			for range 6 {
				w.add(72, 74, samples(10))
			}
			w.add(96, 120, wholeDay) // a lot: at once
			w.add(100, 102, samples(4_000_000))
		}},
		"kinds": {now: 40, shipped: 40, build: func(w *world) {
			eu := func(b *manifest.Block) { b.Labels = map[string]string{"cluster": "eu"} }
			us := func(b *manifest.Block) { b.Labels = map[string]string{"cluster": "us"} }
			w.replicas(0)
			w.add(0, 2, eu)
			w.add(2, 4, eu)
			w.add(0, 2, us)
			w.add(0, 2, func(b *manifest.Block) { b.Shard = "1_of_2" })
			w.add(2, 4, func(b *manifest.Block) { b.Shard = "1_of_2" })
			w.add(0, 2, func(b *manifest.Block) { b.Shard = "2_of_2" })
		}},
		"peers": {now: 24 * 20, shipped: 24 * 20, build: func(w *world) {
			w.add(0, 12, foreign(2))
			w.add(12, 24, foreign(2))
			w.add(24, 48, foreign(3))
			w.add(-24*18, -24*4, foreign(4))
			w.add(54, 72, foreign(3)) // a Prometheus' 18 hours
			w.add(72, 90, foreign(3))
			w.add(90, 108, foreign(3))
			w.add(49.5, 52.25, foreign(1))
			w.add(51, 53, foreign(1))
		}},
		"foreign": {now: 33, shipped: 32, build: func(w *world) {
			w.add(0, 24, wholeDay)
			w.replicas(24)
			gone := w.m.Blocks[1].ULID
			w.m.Blocks = append(w.m.Blocks[:1], w.m.Blocks[2:]...)
			w.m.Removed = append(w.m.Removed, manifest.RemovedBlock{ULID: gone})
			w.add(24, 26, foreign(2), func(b *manifest.Block) { b.Sources = []ulid.ULID{gone} })
			w.replicas(26)
		}},
		"held": {
			now: 33, shipped: 32, build: func(w *world) {
				w.replicas(0)
				w.replicas(24)
				w.replicas(26, func(b *manifest.Block) { b.NoCompact = "index-size-exceeding" })
				w.replicas(28)
				w.replicas(30, func(b *manifest.Block) { b.Chunks = 2 << 30 })
			},
			limits: func(w *world, l *Limits) {
				l.Excluded = map[ulid.ULID]string{w.m.Blocks[3].ULID: "it is damaged, and salvage waits for the bucket"}
				l.Refused = map[string]string{w.at(33, 32).Jobs[2].ID: "samples would have been lost"}
			},
		},
		"deletions": {now: 31, shipped: 30, build: func(w *world) {
			w.add(-24, 0, wholeDay)
			w.add(0, 24, wholeDay)
			w.replicas(26)
			w.add(28, 30)
			w.add(30, 32)
			w.add(24, 26, merged, func(b *manifest.Block) { b.NoCompact = "out-of-order" })
			s := simulation{m: &w.m, now: t0.Add(29 * time.Hour).UnixMilli()}
			s.delete(0, s.now)
			s.now = t0.Add(30*time.Hour + 30*time.Minute).UnixMilli()
			s.delete(t0.Add(-24*time.Hour).UnixMilli(), t0.UnixMilli()-1)
		}},
		"doomed": {now: 31, shipped: 30, build: func(w *world) {
			w.add(0, 24, wholeDay)
			w.replicas(24)
			w.m.Doomed = &manifest.TenantDeletion{RequestedAt: t0.UnixMilli(), GraceUntil: t0.UnixMilli() + dayLength}
		}},
		"retention": {
			now: 24 * 30, shipped: 24 * 30, build: func(w *world) {
				for day := range 29 {
					w.add(float64(24*day), float64(24*day+24), wholeDay)
					w.add(float64(24*day), float64(24*day+2), samples(2_000_000))
				}
			},
			limits: func(_ *world, l *Limits) { l.Retention = 28 * 24 * time.Hour },
		},
		"empty": {now: 0, build: func(w *world) { w.m.Tenant = "t" }},
	} {
		t.Run(name, func(t *testing.T) {
			w := new(world)
			tt.build(w)
			p := w.at(tt.now, tt.shipped, func(l *Limits) {
				if tt.limits != nil {
					tt.limits(w, l)
				}
			})
			(&simulation{t: t, m: &w.m}).check(p)
			var text, again bytes.Buffer
			require.NoError(t, p.Text(&text))
			file := filepath.Join("testdata", name+".txt")
			if *update {
				require.NoError(t, os.WriteFile(file, text.Bytes(), 0o600))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(want), text.String())

			// What is asked for as JSON prints the same.
			data, err := json.Marshal(p)
			require.NoError(t, err)
			var back Plan
			require.NoError(t, json.Unmarshal(data, &back))
			require.NoError(t, back.Text(&again))
			require.Equal(t, text.String(), again.String())
		})
	}
}
