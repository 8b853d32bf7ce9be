package merge

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/internal/diskspace"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// Windows of reading, in bytes.
const (
	minWindow      = 64 << 10
	maxIndexWindow = 2 << 20
	maxChunkWindow = 8 << 20
)

// run is one call of Run.
type run struct {
	ctx      context.Context //nolint:containedctx // lives as long as the call
	cfg      Config
	bkt      bucket.Bucket
	tenant   string
	job      Job
	progress *Progress
	// sabotage, in tests, changes the merger and the sink before they begin.
	sabotage func(*merger)

	patience patience
	inputs   []*input
	chunks   int64 // bytes of all inputs' chunks
	out      *output
	verified int64
	reading  sync.WaitGroup
}

// prepare checks the job and completes its range.
func (j *run) prepare() error {
	if err := tenant.ValidateID(j.tenant); err != nil {
		return err
	}
	if err := j.cfg.Validate(); err != nil {
		return errkind.Wrap(errkind.Invalid, err)
	}
	if len(j.job.Inputs) == 0 || j.job.ULID.IsZero() {
		return errkind.New(errkind.Invalid, "a job needs inputs and a ULID")
	}
	ids := map[ulid.ULID]bool{j.job.ULID: true}
	mint, maxt := j.job.Inputs[0].Block.MinTime, j.job.Inputs[0].Block.MaxTime
	for i := range j.job.Inputs {
		b := &j.job.Inputs[i].Block
		if ids[b.ULID] {
			return errkind.New(errkind.Invalid, "block %s is named twice", b.ULID)
		}
		ids[b.ULID] = true
		mint, maxt = min(mint, b.MinTime), max(maxt, b.MaxTime)
	}
	if j.job.MinTime == 0 && j.job.MaxTime == 0 {
		j.job.MinTime, j.job.MaxTime = mint, maxt
	}
	if j.job.MinTime > mint || j.job.MaxTime < maxt {
		return errkind.New(errkind.Invalid, "range of the output is from %d to %d, that of its inputs from %d to %d",
			j.job.MinTime, j.job.MaxTime, mint, maxt)
	}
	j.job.MinTime, j.job.MaxTime = mint, maxt
	return nil
}

func (j *run) do() (*Result, error) {
	var cancel context.CancelFunc
	j.ctx, cancel = context.WithCancel(j.ctx)
	defer cancel()
	j.patience.began = time.Now()
	if err := j.prepare(); err != nil {
		return nil, err
	}
	dir, err := scratch(j.cfg, &j.job)
	if err != nil {
		return nil, err
	}
	result, err := j.within(dir)
	cancel() // what is still on its way is for nobody
	j.reading.Wait()
	if j.out != nil {
		j.out.abandon()
	}
	j.progress.at(PhaseDone)
	if removed := os.RemoveAll(dir); err == nil {
		err = disk(removed)
	}
	return result, err
}

// rest gives way to others for as long as they want.
func (j *run) rest() {
	if j.job.Rest != nil {
		j.job.Rest()
	}
}

// within does the job with an empty folder.
func (j *run) within(dir string) (*Result, error) {
	if err := j.open(dir); err != nil {
		return nil, j.confirmed(err)
	}
	m, err := j.merge(dir)
	if err != nil {
		return nil, j.confirmed(err)
	}
	for _, in := range j.inputs {
		in.index.release()
		in.chunks.release()
	}
	m.bytes, m.samples, m.pieces, m.symbols = nil, nil, nil, nil
	r := &m.result
	r.OutputSamples = m.due.samples
	if reasons := j.unaccounted(m); len(reasons) > 0 {
		return nil, &Lost{Reasons: reasons}
	}
	if err := j.asListed(); err != nil {
		return nil, err
	}
	for _, in := range j.inputs {
		r.BytesRead += in.bytesRead.Load()
	}
	if m.due.samples == 0 {
		r.Empty = true
		return r, nil
	}
	if err := j.complete(m); err != nil {
		return nil, err
	}
	r.BytesWritten, r.BytesVerified, r.PeakDisk = j.out.written, j.verified, j.out.peakDisk
	return r, nil
}

// open opens all inputs, and makes sure that there is room for the output.
func (j *run) open(dir string) error {
	share := j.cfg.ReadBytes / int64(len(j.job.Inputs)) / 2 // a window is used while the next is fetched
	forIndex := min(max(minWindow, share/4), maxIndexWindow)
	forChunks := min(max(minWindow, share-forIndex), maxChunkWindow)
	total, largest, others := int64(0), int64(0), int64(0)
	for i := range j.job.Inputs {
		in := &input{Input: j.job.Inputs[i], number: i}
		in.from = &objects{
			ctx: j.ctx, bkt: j.bkt, prefix: block.Prefix(j.tenant, in.Block.ULID), wg: &j.reading,
			read: func(n int64) {
				in.bytesRead.Add(n)
				j.progress.readBytes(n)
			},
			patience: j.patience,
		}
		j.inputs = append(j.inputs, in)
		if err := in.open(forIndex, forChunks); err != nil {
			return err
		}
		size := in.index.files[0].size
		largest, others = max(largest, size), others+size
		total += in.toc.LabelIndices
		for _, f := range in.chunks.files {
			total += f.size
			j.chunks += f.size
		}
	}
	j.progress.expect(total)
	// Series are mostly the same in all blocks, so the output's index is about the largest, and of the others the chunks.
	need := largest + (others-largest)/4
	return diskspace.Require(dir, need*11/5, j.cfg.MinFreeBytes)
}

// merge writes chunks, index and sidecar.
func (j *run) merge(dir string) (*merger, error) {
	var err error
	j.out, err = newOutput(j.ctx, j.cfg, j.bkt, block.Prefix(j.tenant, j.job.ULID), dir, j.job.MinTime, j.job.MaxTime)
	if err != nil {
		return nil, err
	}
	j.out.progress, j.out.most, j.out.patience = j.progress, j.chunks, j.patience
	m := &merger{
		inputs: j.inputs, mint: j.job.MinTime, maxt: j.job.MaxTime, out: j.out, encode: encodeChunks, progress: j.progress,
		rest: j.rest,
	}
	if j.sabotage != nil {
		j.sabotage(m)
	}
	j.progress.at(PhaseSymbols)
	if err := j.symbols(m); err != nil {
		return nil, err
	}
	j.progress.at(PhaseSeries)
	if err := m.each(j.ctx); err != nil {
		return nil, err
	}
	j.reading.Wait()
	if m.due.samples == 0 {
		return m, nil
	}
	j.progress.at(PhaseIndex)
	return m, j.out.finish()
}

// symbols gives all symbols to the merger, and to the index those that it needs.
func (j *run) symbols(m *merger) error {
	var err error
	if m.deletions, err = j.deletions(); err != nil {
		return err
	}
	deletes := slices.ContainsFunc(j.inputs, func(in *input) bool { return len(in.Deletions) > 0 })
	err = mergeSymbols(j.inputs, j.cfg.MaxSymbolBytes, func(s string) error {
		m.symbols = append(m.symbols, s)
		if deletes {
			return nil
		}
		return j.out.symbol(s)
	})
	if err != nil || !deletes {
		return err
	}
	used, err := m.usedSymbols(j.ctx)
	if err != nil {
		return err
	}
	for i, s := range m.symbols {
		if !used[i] {
			continue
		}
		if err := j.out.symbol(s); err != nil {
			return err
		}
	}
	return nil
}

// unaccounted says which samples of the inputs the merge has left out, as far as sums can tell.
func (j *run) unaccounted(m *merger) (reasons []string) {
	r := &m.result
	if sum := r.OutputSamples + r.Duplicates + r.Deleted + r.Outside; r.InputSamples != sum {
		reasons = append(reasons, fmt.Sprintf("%d samples were read; %d are in the output, %d duplicates, %d deleted, %d outside",
			r.InputSamples, r.OutputSamples, r.Duplicates, r.Deleted, r.Outside))
	}
	for _, in := range j.inputs {
		if !in.done || in.seriesRead != in.seriesUsed || in.chunksRead != in.chunksUsed {
			reasons = append(reasons, fmt.Sprintf("of block %s, %d of %d series and %d of %d chunks were merged",
				in.Block.ULID, in.seriesUsed, in.seriesRead, in.chunksUsed, in.chunksRead))
		}
	}
	return reasons
}

// asListed compares what was read of each input with what the manifest says of it. An entry that says nothing, as of
// blocks that old programs wrote, is not compared.
func (j *run) asListed() error {
	for _, in := range j.inputs {
		b := &in.Block
		if b.Samples == 0 && b.Series == 0 {
			continue
		}
		if b.Series != in.seriesRead || b.Chunks != in.chunksRead || b.Samples != in.samplesUsed {
			return in.damage(block.MetaName, -1, "%d series, %d chunks and %d samples are listed; %d, %d and %d are there",
				b.Series, b.Chunks, b.Samples, in.seriesRead, in.chunksRead, in.samplesUsed)
		}
	}
	return nil
}

// complete verifies the output and puts its meta.json.
func (j *run) complete(m *merger) error {
	meta, err := block.NewMeta(j.describe(m))
	if err != nil {
		return errkind.Wrap(errkind.Invalid, err)
	}
	data, err := meta.Marshal()
	if err != nil {
		return err
	}
	j.progress.at(PhaseVerify)
	if err := j.verify(data, m.due); err != nil {
		return err
	}
	body := func() io.Reader { return bytes.NewReader(data) }
	if err := j.out.put(block.MetaName, body, int64(len(data))); err != nil {
		return err
	}
	j.out.written += int64(len(data))
	b := meta.ManifestBlock(int64(len(data)))
	b.SidecarBytes, b.DirectoryBytes = j.out.sidecar.Bytes, j.out.sidecar.DirectoryBytes
	b.Deleted = j.job.DeletedThrough
	m.result.Block = b
	return nil
}

// describe says what the output is.
func (j *run) describe(m *merger) block.Description {
	d := block.Description{Writer: j.job.Writer, Labels: j.job.Labels, Shard: j.job.Shard}
	d.Stock.ULID, d.Stock.MinTime, d.Stock.MaxTime = j.job.ULID, j.job.MinTime, j.job.MaxTime
	d.Stock.Stats = tsdb.BlockStats{
		NumSeries: m.due.series, NumChunks: m.due.chunks, NumSamples: m.due.samples,
		NumFloatSamples: m.floats, NumHistogramSamples: m.due.samples - m.floats,
	}
	c := &d.Stock.Compaction
	c.Level = max(1, j.job.Level)
	if !slices.ContainsFunc(j.inputs, func(in *input) bool { return !in.Block.OutOfOrder }) {
		c.SetOutOfOrder() // it overlaps others as they do
	}
	for _, in := range j.inputs {
		b := &in.Block
		c.Sources = append(c.Sources, b.Sources...)
		c.Parents = append(c.Parents, tsdb.BlockDesc{ULID: b.ULID, MinTime: b.MinTime, MaxTime: b.MaxTime})
	}
	slices.SortFunc(c.Sources, ulid.ULID.Compare)
	c.Sources = slices.Compact(c.Sources)
	slices.SortFunc(c.Parents, func(a, b tsdb.BlockDesc) int {
		return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), a.ULID.Compare(b.ULID))
	})
	for _, s := range j.out.sent {
		d.Files = append(d.Files, block.File{Name: s.name, SizeBytes: s.size})
	}
	d.Files = slices.DeleteFunc(d.Files, func(f block.File) bool { return f.Name == block.SidecarName })
	return d
}

// confirmed looks again at an input that seemed to be damaged: the way from the bucket may have been at fault.
func (j *run) confirmed(err error) error {
	var d *Damaged
	var lost *Lost
	switch {
	case j.ctx.Err() != nil:
		return j.ctx.Err()
	case errors.As(err, &lost):
		return cmp.Or(j.suspects(), err)
	case !errors.As(err, &d):
		return err
	}
	_, there := j.bkt.Stat(j.ctx, block.Key(j.tenant, d.ULID, block.MetaName))
	if errors.Is(there, bucket.ErrNotFound) && d.File != block.MetaName {
		return &Gone{d.ULID}
	}
	found := j.inspect(d.ULID)
	var again *Damaged
	switch {
	case found == nil:
		return &Disputed{d}
	case errors.As(found, &again):
		return err
	default:
		return found
	}
}
