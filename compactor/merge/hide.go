package merge

import (
	"cmp"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tombstone"
	"github.com/duramendb/duramen/internal/errkind"
)

// intervals are times that are deleted, both ends included, in order and without overlap.
type intervals [][2]int64

// overlaps reports whether some time in [mint, maxt] may be deleted.
func (v intervals) overlaps(mint, maxt int64) bool {
	for _, i := range v {
		if i[0] <= maxt && mint <= i[1] {
			return true
		}
	}
	return false
}

// has reports whether t is deleted.
func (v intervals) has(t int64) bool {
	i, _ := slices.BinarySearchFunc(v, t, func(i [2]int64, t int64) int { return cmp.Compare(i[1], t) })
	return i < len(v) && v[i][0] <= t
}

// deletions are those of a job, ready to be asked about series.
type deletions struct {
	all []manifest.Deletion
	set *tombstone.Set
}

// deletions compiles those of the job, and finds out which are each input's.
func (j *run) deletions() (d deletions, err error) {
	d.all = j.job.Deletions
	if d.set, err = tombstone.New(d.all); err != nil {
		return d, err
	}
	numbers := make(map[uint64]int, len(d.all))
	for i := range d.all {
		numbers[d.all[i].ID] = i
	}
	for _, in := range j.inputs {
		if len(in.Deletions) == 0 {
			continue
		}
		in.unseen = make([]bool, len(d.all))
		for _, id := range in.Deletions {
			i, known := numbers[id]
			if !known {
				return d, errkind.New(errkind.Invalid, "deletion %d of input %s is not in the job", id, in.Block.ULID)
			}
			in.unseen[i] = true
		}
	}
	return d, nil
}

// hidden returns the times that are deleted of a series which the deletions of the given numbers mean, in dst's memory.
func (in *input) hidden(d *deletions, meant []int, dst intervals) intervals {
	v := dst[:0]
	if in.unseen == nil {
		return v
	}
	for _, i := range meant {
		if in.unseen[i] {
			v = append(v, [2]int64{d.all[i].MinTime, d.all[i].MaxTime})
		}
	}
	slices.SortFunc(v, func(a, b [2]int64) int { return cmp.Compare(a[0], b[0]) })
	joined := v[:0]
	for _, i := range v {
		if n := len(joined); n > 0 && i[0] <= joined[n-1][1] {
			joined[n-1][1] = max(joined[n-1][1], i[1])
		} else {
			joined = append(joined, i)
		}
	}
	return joined
}

// filter says which samples are left out.
type filter struct {
	mint, maxt int64 // what is kept, half-open
	hidden     intervals
}

// filtered is an iterator without the samples that are left out.
type filtered struct {
	chunkenc.Iterator

	filter
}

// Next implements chunkenc.Iterator.
func (f *filtered) Next() chunkenc.ValueType { return f.skip(f.Iterator.Next()) }

// Seek implements chunkenc.Iterator.
func (f *filtered) Seek(t milliseconds) chunkenc.ValueType { return f.skip(f.Iterator.Seek(t)) }

// milliseconds since the Unix epoch. (As an alias it also keeps vet from taking Seek for an io.Seeker's.)
type milliseconds = int64

func (f *filtered) skip(typ chunkenc.ValueType) chunkenc.ValueType {
	for typ != chunkenc.ValNone {
		t := f.AtT()
		if t >= f.mint && t < f.maxt && !f.hidden.has(t) {
			break
		}
		typ = f.Iterator.Next()
	}
	return typ
}

// failing is an iterator without samples.
type failing struct {
	chunkenc.Iterator

	err error
}

// Err implements chunkenc.Iterator.
func (f failing) Err() error { return f.err }
