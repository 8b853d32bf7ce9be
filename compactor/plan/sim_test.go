package plan

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// simulation is a manifest to which jobs are applied as a compactor does, without any samples.
type simulation struct {
	t   testing.TB
	m   *manifest.Manifest
	rng *rand.Rand
	now int64
	n   uint16
	// written counts the samples of all blocks that were ever made.
	written uint64
}

// id returns a ULID of the present.
func (s *simulation) id() ulid.ULID {
	s.n++
	id := ulid.MustNew(uint64(max(0, s.now)), nil)
	id[14], id[15] = byte(s.n>>8), byte(s.n)
	return id
}

// ship lists a block.
func (s *simulation) ship(b manifest.Block) {
	if b.ULID == (ulid.ULID{}) {
		b.ULID = s.id()
	}
	if len(b.Sources) == 0 {
		b.Sources = []ulid.ULID{b.ULID}
	}
	s.m.Blocks = append(s.m.Blocks, b)
	s.m.Version++
	s.written += b.Samples
}

// check makes sure that a plan is one that can be carried out.
func (s *simulation) check(p *Plan) {
	listed := map[ulid.ULID]*manifest.Block{}
	for i := range s.m.Blocks {
		listed[s.m.Blocks[i].ULID] = &s.m.Blocks[i]
	}
	taken := map[ulid.ULID]struct{}{}
	for i := range p.Jobs {
		j := &p.Jobs[i]
		require.Len(s.t, j.Inputs, len(j.Blocks))
		require.NotEmpty(s.t, j.Reason)
		require.GreaterOrEqual(s.t, j.Level, 2)
		if j.Kind == KindRewrite {
			require.Len(s.t, j.Blocks, 1)
			require.NotEmpty(s.t, j.Deletions)
		} else {
			require.Greater(s.t, len(j.Blocks), 1, "a merge of one block would go on for ever")
			require.True(s.t, aligned(j.MinTime, dayLength).holds(j.MinTime, j.MaxTime), "a job of more than a day")
		}
		if i > 0 && (p.Jobs[i-1].Kind == KindRewrite) == (j.Kind == KindRewrite) {
			require.LessOrEqual(s.t, p.Jobs[i-1].MinTime, j.MinTime, "oldest first")
		}
		for k, id := range j.Blocks {
			b := listed[id]
			require.NotNil(s.t, b, "input %s is not listed", id)
			require.Equal(s.t, *b, j.Inputs[k])
			require.NotContains(s.t, taken, id, "input of two jobs")
			taken[id] = struct{}{}
			require.Empty(s.t, b.NoCompact)
			require.Equal(s.t, labelsKey(j.Labels), labelsKey(b.Labels))
			require.Equal(s.t, j.Shard, b.Shard)
			require.LessOrEqual(s.t, j.MinTime, b.MinTime)
			require.GreaterOrEqual(s.t, j.MaxTime, b.MaxTime)
			for _, d := range s.m.DeletionsOf(b) {
				require.Contains(s.t, j.Deletions, d)
				require.LessOrEqual(s.t, d.ID, j.DeletedThrough)
			}
		}
	}
	for _, k := range p.Skips {
		require.NotEmpty(s.t, k.Detail)
		require.Contains(s.t, Reasons(), k.Reason)
		if k.Reason == SkipForeignCompactor {
			require.Empty(s.t, p.Jobs)
		}
	}
	if len(p.Jobs) > 0 && slices.ContainsFunc(p.Jobs, func(j Job) bool { return j.Kind != KindRewrite }) {
		require.NotZero(s.t, p.OldestUncompacted)
	}
	if p.OldestUncompacted != 0 {
		require.Positive(s.t, p.Uncompacted())
	}
}

// apply swaps the inputs of a job for its output. Replicas make the output smaller than the sum by as much as keeps each
// sample once.
func (s *simulation) apply(j *Job, samples uint64) {
	out := manifest.Block{
		ULID: s.id(), MinTime: j.MinTime, MaxTime: j.MaxTime, Level: j.Level, Samples: samples, Writer: "compactor/x",
		Labels: j.Labels, Shard: j.Shard, AddedAt: s.now, Deleted: j.DeletedThrough,
	}
	seen := map[ulid.ULID]struct{}{}
	for i := range j.Inputs {
		for _, source := range j.Inputs[i].Sources {
			if _, twice := seen[source]; !twice {
				seen[source] = struct{}{}
				out.Sources = append(out.Sources, source)
			}
		}
		out.SizeBytes += j.Inputs[i].SizeBytes
		out.Series = max(out.Series, j.Inputs[i].Series)
		out.Chunks = max(out.Chunks, j.Inputs[i].Chunks)
		s.m.Removed = append(s.m.Removed, manifest.RemovedBlock{ULID: j.Inputs[i].ULID, RemovedAt: s.now})
	}
	s.m.Blocks = slices.DeleteFunc(slices.Clone(s.m.Blocks), func(b manifest.Block) bool {
		return slices.Contains(j.Blocks, b.ULID)
	})
	s.ship(out)
}

// settle plans and applies at a standstill of time until nothing is left to do, and returns how many jobs it took.
func (s *simulation) settle(plan func() *Plan, samples func(j *Job) uint64) int {
	for done := 0; ; {
		before := s.left()
		p := plan()
		s.check(p)
		if len(p.Jobs) == 0 {
			return done
		}
		n := 1 + s.rng.IntN(len(p.Jobs)) // some, in any order, as several workers do
		s.rng.Shuffle(len(p.Jobs), func(i, k int) { p.Jobs[i], p.Jobs[k] = p.Jobs[k], p.Jobs[i] })
		for i := range p.Jobs[:n] {
			s.apply(&p.Jobs[i], samples(&p.Jobs[i]))
			done++
		}
		require.Less(s.t, s.left(), before, "jobs that leave as much to do as there was")
	}
}

// left is how much there can be to do at most: it falls with each job.
func (s *simulation) left() int {
	left := len(s.m.Blocks)
	for i := range s.m.Blocks {
		left += len(s.m.DeletionsOf(&s.m.Blocks[i]))
	}
	return left
}

// delete adds a deletion as of now.
func (s *simulation) delete(mint, maxt int64) {
	s.m.NextDeletion = max(1, s.m.NextDeletion)
	s.m.Deletions = append(s.m.Deletions, manifest.Deletion{
		ID: s.m.NextDeletion, Selectors: []string{`{a="b"}`}, MinTime: mint, MaxTime: min(maxt, s.now), CreatedAt: s.now,
	})
	s.m.NextDeletion++
}
