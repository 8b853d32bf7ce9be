package salvage

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// cover looks for the lost chunks in other blocks, notes those that are there, and returns how many they are.
func (j *job) cover(ctx context.Context) (covered Count, err error) {
	slices.SortStableFunc(j.losses.series, func(a, b lostSeries) int { return labels.Compare(a.lset, b.lset) })
	others := slices.DeleteFunc(slices.Clone(j.Others), func(o manifest.Block) bool {
		return o.ULID == j.Damaged.ULID || o.Shard != j.Damaged.Shard || !maps.Equal(o.Labels, j.Damaged.Labels) ||
			o.MaxTime <= j.Damaged.MinTime || j.Damaged.MaxTime <= o.MinTime
	})
	for i := range others {
		if j.losses.open() == 0 {
			break
		}
		n, err := j.coverBy(ctx, &others[i])
		if err != nil {
			return Count{}, err
		}
		if n.Chunks > 0 {
			j.report.CoveredBy = append(j.report.CoveredBy, others[i].ULID.String())
			covered.Chunks += n.Chunks
			covered.Samples += n.Samples
		}
	}
	for i := range j.losses.series {
		s := &j.losses.series[i]
		if s.whole && slices.ContainsFunc(s.chunks, func(c lostChunk) bool { return c.covered }) {
			covered.Series++
			s.whole, s.elsewhere = false, true
		}
	}
	return covered, nil
}

// open returns how many lost chunks have not been found elsewhere.
func (l *losses) open() (n int) {
	for i := range l.series {
		if l.series[i].lset.IsEmpty() {
			continue
		}
		for _, c := range l.series[i].chunks {
			if !c.covered {
				n++
			}
		}
	}
	return n
}

// coverBy looks in one block, which may be damaged as well.
func (j *job) coverBy(ctx context.Context, other *manifest.Block) (n Count, err error) {
	dir := filepath.Join(j.dir, other.ULID.String()+"-other")
	defer func() { err = errors.Join(err, unavailable(os.RemoveAll(dir))) }() // after close
	f, err := openFolder(ctx, j.bkt, j.Tenant, other.ULID, dir, true)
	if err != nil {
		return n, err
	}
	ignored := func(string) faults { return func(int64, string, string, ...any) {} }
	v, err := openView(f, other, j.cfg.maxMemory(), ignored)
	if errors.Is(err, ErrTooLarge) {
		return n, f.close() // it may cover some, and nobody can say
	}
	if err != nil {
		return n, errors.Join(err, f.close())
	}
	defer func() { err = errors.Join(err, v.close()) }()
	i, lost := 0, j.losses.series
	return n, v.each(func(s series) error {
		for i < len(lost) && labels.Compare(lost[i].lset, s.lset) < 0 {
			i++
		}
		for ; i < len(lost) && labels.Equal(lost[i].lset, s.lset); i++ {
			for k := range lost[i].chunks {
				if err := lost[i].chunks[k].find(v, s.chunks, &n); err != nil {
					return err
				}
			}
		}
		return ctx.Err()
	})
}

// find looks for the chunk among those of the same series elsewhere.
func (c *lostChunk) find(v *view, chunks []chunkPlace, n *Count) error {
	for _, x := range chunks {
		if c.covered || !c.piece && (x.mint != c.mint || x.maxt != c.maxt) {
			continue
		}
		r, _, err := v.read(x.segment, int64(x.offset), v.segmentSize(x.segment), false)
		if err != nil {
			return err
		}
		if r != nil && r.fits(x, v.entry.MinTime, v.entry.MaxTime) == "" && c.same(r) && (!c.piece || c.sameBytes(r)) {
			c.covered = true
			n.Chunks++
			n.Samples += r.samples()
		}
	}
	return nil
}
