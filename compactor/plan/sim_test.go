package plan

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"

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

// must fails the test when ok is not set. It costs nothing when it is, unlike an assertion.
func (s *simulation) must(ok bool, format string, args ...any) {
	if !ok {
		s.t.Helper()
		s.t.Fatalf(format, args...)
	}
}

// check makes sure that a plan is one that can be carried out.
func (s *simulation) check(p *Plan) {
	listed, taken := map[ulid.ULID]*manifest.Block{}, map[ulid.ULID]struct{}{}
	for i := range s.m.Blocks {
		listed[s.m.Blocks[i].ULID] = &s.m.Blocks[i]
	}
	merges := 0
	for i := range p.Jobs {
		j := &p.Jobs[i]
		s.checkJob(j)
		if j.Kind != KindRewrite {
			merges++
		}
		if i > 0 && (p.Jobs[i-1].Kind == KindRewrite) == (j.Kind == KindRewrite) {
			s.must(p.Jobs[i-1].MinTime <= j.MinTime, "job %s is older than the one before it", j.ID)
		}
		for k, id := range j.Blocks {
			_, twice := taken[id]
			taken[id] = struct{}{}
			s.must(!twice, "%s is an input of two jobs", id)
			b := listed[id]
			s.must(b != nil && b.ULID == j.Inputs[k].ULID && b.Samples == j.Inputs[k].Samples, "input %s is not listed", id)
			s.checkInput(j, b)
		}
	}
	for _, k := range p.Skips {
		s.must(k.Detail != "" && slices.Contains(Reasons(), k.Reason), "skip %v", k)
		s.must(k.Reason != SkipForeignCompactor || len(p.Jobs) == 0, "jobs beside a peer's compactor")
	}
	s.must(merges == 0 || p.OldestUncompacted != 0, "merges, and nothing waits")
	s.must(p.OldestUncompacted == 0 || p.Uncompacted() > 0, "something waits, and nothing is uncompacted")
}

func (s *simulation) checkJob(j *Job) {
	s.must(len(j.Inputs) == len(j.Blocks) && j.Reason != "" && j.Level > 1, "job %v", j)
	if j.Kind == KindRewrite {
		s.must(len(j.Blocks) == 1 && len(j.Deletions) > 0, "rewrite %v", j)
		return
	}
	s.must(len(j.Blocks) > 1, "a merge of one block would go on for ever: %v", j)
	s.must(aligned(j.MinTime, dayLength).holds(j.MinTime, j.MaxTime), "a job of more than a day: %v", j)
}

func (s *simulation) checkInput(j *Job, b *manifest.Block) {
	s.must(b.NoCompact == "", "%s is not to be compacted", b.ULID)
	s.must(labelsKey(j.Labels) == labelsKey(b.Labels) && j.Shard == b.Shard, "%s does not belong into job %v", b.ULID, j)
	s.must(j.MinTime <= b.MinTime && b.MaxTime <= j.MaxTime, "%s reaches beyond job %v", b.ULID, j)
	for _, d := range s.m.DeletionsOf(b) {
		named := slices.ContainsFunc(j.Deletions, func(x manifest.Deletion) bool { return x.ID == d.ID })
		s.must(named && d.ID <= j.DeletedThrough, "deletion %d of %s is not in job %v", d.ID, b.ULID, j)
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
		s.must(s.left() < before, "jobs that leave as much to do as there was")
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
