package plan

import (
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// TestManifestTakesWhatIsPlanned: the outputs of jobs, made as the plan says, are swapped for their inputs without a
// conflict, among them blocks with deletions that concern some inputs and not others.
func TestManifestTakesWhatIsPlanned(t *testing.T) {
	for seed := range uint64(20) {
		s := &simulation{t: t, m: &manifest.Manifest{Tenant: "t"}, now: t0.UnixMilli(), rng: rand.New(rand.NewPCG(seed, 7))}
		bkt := bucket.NewInMemory()
		for range 20 {
			b := s.randomBlock()
			if b.Writer != "ingester/a" && b.Level == 1 { // brought in after the deletion
				b.ULID = s.id()
			}
			s.ship(b)
		}
		for range 2 {
			s.now -= s.rng.Int64N(5 * dayLength)
			s.delete(s.now-3*dayLength, s.now)
			s.now = t0.UnixMilli()
		}
		s.now += 9 * dayLength
		slices.SortFunc(s.m.Blocks, func(a, b manifest.Block) int { return compareBlocks(&a, &b) })
		s.m.Version, s.m.SwapID = 1, "00000000000000000000000000000001"
		data, err := manifest.Encode(s.m)
		require.NoError(t, err)
		require.NoError(t, bkt.PutIfAbsent(t.Context(), manifest.Key("t", 1), data))
		owner := manifest.NewOwner(bkt, func() time.Time { return time.UnixMilli(s.now) }, slog.New(slog.DiscardHandler), nil)
		for rounds := 0; ; rounds++ {
			require.Less(t, rounds, 60)
			m, err := owner.Refresh(t.Context(), "t")
			require.NoError(t, err)
			s.m = m
			p := Make(m, time.UnixMilli(s.now), Limits{MaxInputs: 5})
			s.check(p)
			if len(p.Jobs) == 0 {
				break
			}
			for i := range p.Jobs {
				j := &p.Jobs[i]
				out := manifest.Block{
					ULID: s.id(), MinTime: j.MinTime, MaxTime: j.MaxTime, Level: j.Level, Samples: j.InputSamples, Writer: "compactor/x",
					Labels: j.Labels, Shard: j.Shard, Deleted: j.DeletedThrough,
				}
				for k := range j.Inputs {
					out.Sources = append(out.Sources, j.Inputs[k].Sources...)
				}
				var applied []uint64
				for _, d := range j.Deletions {
					applied = append(applied, d.ID)
				}
				_, err := owner.Swap(t.Context(), "t", manifest.Change{
					Add: []manifest.Block{out}, Replace: append([]ulid.ULID{}, j.Blocks...), Applied: applied,
				})
				require.NoError(t, err, "seed %d, job %v", seed, j)
			}
		}
	}
}
