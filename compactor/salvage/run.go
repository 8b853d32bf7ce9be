package salvage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/diskspace"
	"github.com/duramendb/duramen/internal/errkind"
)

// job is one call of Run.
type job struct {
	Request

	cfg Config
	bkt bucket.Bucket
	dir string // of this job, on the local disk

	report *Report
	notes  map[string]*FileFaults
	claims claims
	losses losses
	read   Count // chunks and samples as they were read
	// rereads counts chunks that were read twice.
	rereads int
	// counted is what there was, as far as that is known.
	counted manifest.Block
	// merges counts the tries to restore what cannot be read.
	merges byte
	// whole is that of the view, miscounted set when the manifest has other counts than such an index.
	whole, miscounted bool
}

// sink takes the series that can be read, in label order.
type sink interface {
	add(lset labels.Labels, chks []chunks.Meta) error
}

func run(ctx context.Context, cfg Config, bkt bucket.Bucket, r Request) (_ *Result, err error) {
	if err := os.MkdirAll(cfg.Scratch, 0o777); err != nil {
		return nil, unavailable(err)
	}
	dir, err := os.MkdirTemp(cfg.Scratch, "salvage-"+r.Damaged.ULID.String()+"-")
	if err != nil {
		return nil, unavailable(err)
	}
	// The new block, its sidecar, and the indexes of blocks that are searched for lost chunks, one of which is the largest.
	need := 2 * r.Damaged.SizeBytes
	for i := range r.Others {
		need = max(need, r.Damaged.SizeBytes+2*r.Others[i].IndexBytes)
	}
	if err := diskspace.Require(dir, need, cfg.MinFreeBytes); err != nil {
		return nil, errors.Join(err, unavailable(os.RemoveAll(dir)))
	}
	j := &job{Request: r, cfg: cfg, bkt: bkt, dir: dir, notes: map[string]*FileFaults{}}
	defer func() { err = errors.Join(err, unavailable(os.RemoveAll(dir))) }()
	j.report = &Report{
		Version: reportVersion, Tenant: r.Tenant, Block: r.Damaged, WrittenAt: r.Now.UnixMilli(), Writer: r.Writer, Cause: r.Cause,
	}
	return j.run(ctx)
}

func (j *job) run(ctx context.Context) (_ *Result, err error) {
	f, err := openFolder(ctx, j.bkt, j.Tenant, j.Damaged.ULID, filepath.Join(j.dir, "damaged"), false)
	if err != nil {
		return nil, err
	}
	meta, err := j.meta(ctx, f)
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	v, err := openView(f, &j.Damaged, j.cfg.maxMemory(), j.fault)
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	defer func() { err = errors.Join(err, v.close()) }()
	out := newOutput(ctx, filepath.Join(j.dir, j.ULID.String()), j.Dry)
	defer out.abandon()
	if err := j.salvage(v, out); err != nil {
		return nil, err
	}
	if err := j.confirm(v); err != nil {
		return nil, err
	}
	covered, err := j.cover(ctx)
	if err != nil {
		return nil, err
	}
	j.conclude(covered)
	res := &Result{Report: j.report, Empty: j.read.Chunks == 0}
	if !res.Empty && j.onlyMeta() {
		res.Healed = true
		return res, j.heal(ctx, f)
	}
	if !res.Empty {
		if res.Block, err = j.write(ctx, out, meta); err != nil {
			return nil, err
		}
	}
	if err := j.complete(ctx, res, f.nothingThere()); err != nil {
		return nil, err
	}
	if f.nothingThere() && !j.report.Lossless && !j.AcceptLoss && !j.Dry {
		return nil, ErrNothingThere
	}
	if !res.Empty {
		j.report.NewBlock = res.Block.ULID.String()
	}
	return res, nil
}

// complete adds what the damaged block was made of, when something is lost.
func (j *job) complete(ctx context.Context, res *Result, gone bool) error {
	if j.report.Lossless || len(j.Origins.Inputs) == 0 {
		return nil
	}
	if j.Dry {
		for i := range j.Origins.Inputs {
			j.report.RestoredFrom = append(j.report.RestoredFrom, j.Origins.Inputs[i].Block.ULID.String())
		}
		return nil
	}
	b, ok, err := j.restore(ctx, res.Block, gone)
	if err != nil {
		return err
	}
	if ok {
		res.Block, res.Empty = b, false
	}
	return nil
}

// meta reads meta.json, which has no checksum: it is believed as far as the manifest says the same. nil when it cannot be
// used.
func (j *job) meta(ctx context.Context, f *folder) (*block.Meta, error) {
	fault := j.fault(block.MetaName)
	m, err := block.FetchMeta(ctx, j.bkt, j.Tenant, j.Damaged.ULID)
	switch {
	case errors.Is(err, block.ErrNoMeta), errkind.Of(err) == errkind.Corrupt:
		fault(-1, "", "%v", err)
		return nil, nil //nolint:nilnil // that it cannot be used is noted
	case err != nil:
		return nil, err
	}
	own := m.ManifestBlock(f.files[block.MetaName])
	d := &j.Damaged
	wrong := ""
	switch {
	case own.MinTime != d.MinTime || own.MaxTime != d.MaxTime:
		wrong = "times"
	case own.Series != d.Series || own.Samples != d.Samples || own.Chunks != d.Chunks:
		wrong = "counts"
	case own.Level != d.Level || !slices.Equal(own.Sources, d.Sources) || own.OutOfOrder != d.OutOfOrder:
		wrong = "origin"
	case own.Writer != d.Writer || !maps.Equal(own.Labels, d.Labels) || own.Shard != d.Shard:
		wrong = "writer or labels"
	}
	if wrong != "" {
		fault(-1, "", "its %s are not those in the manifest", wrong)
		return nil, nil //nolint:nilnil // as above
	}
	var sizes []int64
	files, _ := m.Files()
	for _, x := range files {
		if n, ok := block.ParseSegmentName(x.Name); ok && n == len(sizes)+1 {
			sizes = append(sizes, x.SizeBytes)
		} else if have := f.files[x.Name]; !ok && have != x.SizeBytes {
			j.fault(x.Name)(-1, "", "it has %d bytes instead of %d", have, x.SizeBytes)
		}
	}
	f.missing(sizes, j.fault)
	return m, nil
}

// fault returns where to say what is wrong with a file.
func (j *job) fault(file string) faults {
	return func(off int64, series, format string, args ...any) {
		n := j.notes[file]
		if n == nil {
			n = &FileFaults{File: file}
			j.notes[file] = n
		}
		if len(n.Faults) == maxFaults {
			n.More++
			return
		}
		f := Fault{Offset: off, Series: series, Text: fmt.Sprintf(format, args...)}
		if !slices.Contains(n.Faults, f) {
			n.Faults = append(n.Faults, f)
		}
	}
}

// salvage reads all series of the view into out.
func (j *job) salvage(v *view, out sink) error {
	j.whole = v.whole
	symbols := map[string]struct{}{}
	err := v.each(func(s series) error {
		s.lset.Range(func(l labels.Label) {
			for _, text := range []string{l.Name, l.Value} {
				if _, known := symbols[text]; !known {
					symbols[strings.Clone(text)] = struct{}{} // not with the other labels of the series
				}
			}
		})
		for _, c := range s.chunks {
			j.claims.add(c)
		}
		return v.ctx.Err()
	})
	if err != nil {
		return err
	}
	for _, s := range v.unnamed {
		for _, c := range s.chunks {
			j.claims.add(c)
		}
	}
	j.claims.sort()
	if o, ok := out.(*output); ok {
		if err := o.begin(symbols); err != nil {
			return err
		}
	}
	if err := v.each(func(s series) error { return j.one(v, s, out) }); err != nil {
		return err
	}
	for _, s := range v.unnamed {
		if err := j.one(v, s, nil); err != nil {
			return err
		}
	}
	if known := j.claims.count(); j.Damaged.Chunks > 0 && known >= j.Damaged.Chunks {
		return nil
	}
	return j.claims.orphans(v.folder, func(_ int64, r *record) {
		j.losses.orphans.Chunks++
		j.losses.orphans.Samples += r.samples()
		j.losses.note(max(r.mint, j.Damaged.MinTime), min(r.maxt, j.Damaged.MaxTime-1))
	})
}

// one reads the chunks of a series. Without out it belongs to nobody, and its chunks count as orphans.
func (j *job) one(v *view, s series, out sink) error {
	if err := v.ctx.Err(); err != nil {
		return err
	}
	lost := lostSeries{lset: s.lset}
	metas := make([]chunks.Meta, 0, len(s.chunks))
	for _, c := range s.chunks {
		r, left, err := j.chunk(v, s.lset, c)
		if err != nil {
			return err
		}
		why := left.why
		if r != nil {
			j.claims.ended(c, int64(c.offset)+r.length)
			why = r.fits(c, j.Damaged.MinTime, j.Damaged.MaxTime)
		}
		if why != "" {
			j.fault(block.SegmentName(int(c.segment)+1))(int64(c.offset), shown(s.lset), "a chunk from %d to %d is lost: %s", c.mint, c.maxt, why)
			lost.chunks = append(lost.chunks, lostChunk{chunkPlace: c, remains: left})
			continue
		}
		if out == nil {
			j.losses.orphans.Chunks++
			j.losses.orphans.Samples += r.samples()
			j.losses.note(r.mint, r.maxt)
			continue
		}
		data, err := chunkenc.FromData(r.encoding, slices.Clone(r.data))
		if err != nil {
			return err // it was decoded before
		}
		j.read.Chunks++
		j.read.Samples += r.samples()
		metas = append(metas, chunks.Meta{MinTime: r.mint, MaxTime: r.maxt, Chunk: data})
	}
	lost.whole = len(metas) == 0
	if len(lost.chunks) > 0 {
		j.losses.add(lost)
	}
	if len(metas) == 0 {
		return nil
	}
	j.read.Series++
	return out.add(s.lset, metas)
}

// chunk reads one chunk.
func (j *job) chunk(v *view, lset labels.Labels, c chunkPlace) (*record, remains, error) {
	limit, exact := j.claims.next(c)
	if c.length > 0 {
		limit, exact = int64(c.offset)+int64(c.length), true
	} else if !exact {
		limit = v.segmentSize(c.segment)
	}
	r, left, err := v.read(c.segment, int64(c.offset), limit, exact)
	if r != nil || err != nil {
		return r, left, err
	}
	length := c.length
	if length == 0 && !lset.IsEmpty() && (!exact || int64(c.offset) < v.segmentSize(c.segment)) {
		if length = v.s.length(lset, c); length > 0 {
			r, left, err = v.read(c.segment, int64(c.offset), int64(c.offset)+int64(length), true)
		} else if !exact { // the last one of its file
			r, _, err = v.read(c.segment, int64(c.offset), limit, true)
		}
		if r != nil || err != nil {
			return r, left, err
		}
	}
	if r, err = j.onceMore(v, c, limit, length); r != nil || err != nil {
		return r, left, err
	}
	if length == 0 && exact {
		length = uint32(limit - int64(c.offset))
	}
	left.length = length
	return nil, left, nil
}

// maxRereads bounds the chunks that are read twice.
const maxRereads = 10_000

// onceMore reads a chunk that could not be read by a request of its own, because it may have been damaged on the way.
func (j *job) onceMore(v *view, c chunkPlace, limit int64, length uint32) (*record, error) {
	if int64(c.offset) >= v.segmentSize(c.segment) || j.rereads >= maxRereads {
		return nil, nil //nolint:nilnil // there is none
	}
	j.rereads++
	if length > 0 {
		limit = int64(c.offset) + int64(length)
	}
	again := &folder{ctx: v.ctx, src: v.src, files: v.files, near: true, open: map[uint32]*segment{}}
	r, _, err := again.read(c.segment, int64(c.offset), limit, length > 0)
	return r, err
}

// conclude fills the report.
func (j *job) conclude(covered Count) {
	j.counted = j.expected()
	for _, n := range slices.Sorted(maps.Keys(j.notes)) {
		j.report.Files = append(j.report.Files, *j.notes[n])
	}
	j.losses.conclude(j.report, &j.counted, j.read, covered)
	j.report.Recovered = j.read
}

// expected is the entry of the damaged block with counts that are true, as far as they are known. A list of all series that
// has a checksum, as each of the series has, knows better than the manifest.
func (j *job) expected() manifest.Block {
	b := j.Damaged
	if !j.whole || j.losses.orphans.Chunks > 0 {
		return b
	}
	lost := j.losses.count()
	series, chunks := j.read.Series+lost.Series, j.read.Chunks+lost.Chunks
	samples := b.Samples
	if lost.Chunks == 0 {
		samples = j.read.Samples
	} else if b.Chunks != chunks {
		samples = 0
	}
	if b.Samples+b.Series+b.Chunks > 0 && (b.Series != series || b.Chunks != chunks || samples != b.Samples) {
		j.miscounted = true
		j.fault(block.MetaName)(-1, "", "the manifest counts %d series, %d chunks and %d samples; the index has %d series and %d chunks",
			b.Series, b.Chunks, b.Samples, series, chunks)
	}
	b.Series, b.Chunks, b.Samples = series, chunks, samples
	return b
}

// confirm reads index and sidecar once more, when something was wrong with them: damage on the way is none in the bucket.
func (j *job) confirm(v *view) error {
	for name, before := range map[string][]byte{block.IndexName: v.x.b, block.SidecarName: v.s.b} {
		if j.notes[name] == nil || len(before) == 0 {
			continue
		}
		after, err := v.fetchAs(name, "again-"+name)
		if err != nil {
			return err
		}
		if !bytes.Equal(before, after) {
			return errkind.New(errkind.Unavailable, "%s was read twice, and came in two ways", name)
		}
	}
	return nil
}

// onlyMeta reports whether all but meta.json is as it should be.
func (j *job) onlyMeta() bool {
	return !j.miscounted && j.report.Lossless && j.report.Covered == Count{} && len(j.report.Files) == 1 &&
		j.report.Files[0].File == block.MetaName
}
