package blockcheck

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/chunkstore/block"
)

// Summary is what a check has seen of a block.
type Summary struct {
	// Meta is nil when meta.json cannot be read.
	Meta *block.Meta
	// MetaBytes is the size of meta.json, Bytes that of all files.
	MetaBytes, Bytes int64
	// Files are all files of the block's folder with their sizes; Others are those that no block needs.
	Files  map[string]int64
	Others []string

	// DirectoryBytes is the size of the sidecar's directory, 0 when there is none that can be read.
	DirectoryBytes int64

	Series, Chunks, FloatSamples, HistogramSamples uint64
	// MinTime and MaxTime are those of the samples, both inclusive; of a block without any, MinTime is above MaxTime.
	MinTime, MaxTime int64

	Faults int
}

// Samples is how many there are of all kinds.
func (s *Summary) Samples() uint64 { return s.FloatSamples + s.HistogramSamples }

// Options are the wishes of the caller. The zero value has none.
type Options struct {
	// Read is told how many bytes of the block were read, as it goes on.
	Read func(n int64)
	// Shallow leaves out index and chunks: meta.json is checked, and the sizes that it names.
	Shallow bool
	// Chunk is told of each chunk of a series that could be read and decoded.
	Chunk func(Chunk)
}

// Chunk is what a check has seen of one chunk.
type Chunk struct {
	// Series are the labels of its series, valid until the call ends.
	Series labels.Labels
	// MinTime and MaxTime are what the index says, Samples what was decoded.
	MinTime, MaxTime int64
	Samples          uint64
	// Sum is the checksum of its record.
	Sum uint32
}

// Check reads a whole block and calls report for each fault, in the order in which they are met. A block that is damaged
// is no error; one means that the source failed, or that ctx ended, and that the summary is not complete.
//
// At most about 60 MiB are held, however large the block is, and the directory of its sidecar. A sidecar that is missing is
// no fault: a query that needs it has it built.
func Check(ctx context.Context, src Source, id ulid.ULID, o Options, report func(Fault)) (*Summary, error) {
	sum := &Summary{MinTime: math.MaxInt64, MaxTime: math.MinInt64}
	c := &check{ctx: ctx, src: src, id: id, report: report, sum: sum, all: pairs{}, read: o.Read, shallow: o.Shallow, chunk: o.Chunk}
	if c.read == nil {
		c.read = func(int64) {}
	}
	if err := c.run(); err != nil {
		return sum, fmt.Errorf("check block %s: %w", id, err)
	}
	return sum, nil
}

// check is one call of Check.
type check struct {
	ctx    context.Context //nolint:containedctx // lives as long as the call
	src    Source
	id     ulid.ULID
	report func(Fault)
	read   func(n int64)
	chunk  func(Chunk) // nil: nobody asks

	shallow bool

	files map[string]int64
	sum   *Summary
	all   pairs // of labels and series, as the series say
	// indexed is what the sidecar has to say.
	indexed sidecars

	// noIndex is set when nothing can be said of what series there are, unread when a part of the index or chunks could
	// not be read, so that counts cannot be right.
	noIndex, unread bool
}

func (c *check) fault(name string, off int64, series, format string, args ...any) {
	c.sum.Faults++
	c.report(Fault{File: name, Offset: off, Series: series, Text: fmt.Sprintf(format, args...)})
}

// open returns a file whose reading counts.
func (c *check) open(name string, size int64) *file {
	return &file{ctx: c.ctx, src: c.src, name: name, size: size, read: c.read}
}

// beside returns a file that is read beside another that counts.
func (c *check) beside(name string, size int64) *file {
	return &file{ctx: c.ctx, src: c.src, name: name, size: size, read: func(int64) {}}
}

func (c *check) run() (err error) {
	if c.files, err = c.src.List(c.ctx); err != nil {
		return err
	}
	c.sum.Files = c.files
	segs := &segments{c: c, count: c.list(), missing: map[int]bool{}}
	if err := c.meta(); err != nil || c.shallow {
		return err
	}
	before := c.sum.Faults
	if err := c.index(segs); err != nil {
		return err
	}
	if err := segs.rest(); err != nil {
		return err
	}
	if err := c.sidecar(c.sum.Faults == before); err != nil {
		return err
	}
	c.counts()
	return nil
}

// list sorts the files into those of a block and others, and returns the number of the last segment.
func (c *check) list() (segments int) {
	for name, size := range c.files {
		c.sum.Bytes += size
		if n, ok := block.ParseSegmentName(name); ok {
			segments = max(segments, n)
		} else if name != block.MetaName && name != block.IndexName && name != block.SidecarName {
			c.sum.Others = append(c.sum.Others, name)
		}
	}
	return segments
}

// meta checks meta.json and the sizes that it names.
func (c *check) meta() error {
	size, ok := c.files[block.MetaName]
	if !ok {
		c.fault(block.MetaName, -1, "", "it is missing: the block is not complete")
		return nil
	}
	f := c.open(block.MetaName, size)
	c.sum.MetaBytes = size
	if size > block.MaxMetaBytes {
		c.fault(block.MetaName, -1, "", "it has %d bytes, and should have less than %d", size, block.MaxMetaBytes)
		return nil
	}
	data, err := f.at(0, size)
	if err != nil {
		return err
	}
	m, err := block.ParseMeta(data)
	if err != nil {
		c.fault(block.MetaName, -1, "", "%v", err)
		return nil
	}
	c.sum.Meta = m
	c.ulids(data)
	if m.Compaction.Level < 1 {
		c.fault(block.MetaName, -1, "", "compaction level is %d; it counts from 1", m.Compaction.Level)
	}
	if m.Thanos == nil {
		return nil
	}
	named := map[string]bool{}
	for _, want := range m.Thanos.Files {
		named[want.Name] = true
		switch size, ok := c.files[want.Name]; {
		case want.Name == block.MetaName:
		case !ok && want.SizeBytes > 0:
			c.fault(want.Name, -1, "", "it is missing; meta.json names it with %d bytes", want.SizeBytes)
		case ok && size != want.SizeBytes && want.SizeBytes > 0:
			c.fault(want.Name, -1, "", "it has %d bytes; meta.json says %d", size, want.SizeBytes)
		}
	}
	for name := range c.files {
		_, segment := block.ParseSegmentName(name)
		if len(named) > 0 && !named[name] && (segment || name == block.IndexName) {
			c.fault(name, -1, "", "meta.json does not name it")
		}
	}
	return nil
}

// ulids checks how ULIDs are written: their decoder takes any letters, and what other programs make of them is not known.
func (c *check) ulids(meta []byte) {
	var text struct {
		ULID       string
		Compaction struct{ Sources []string }
	}
	if err := json.Unmarshal(meta, &text); err != nil || text.ULID != c.id.String() {
		c.fault(block.MetaName, -1, "", "it is of block %q", text.ULID)
	}
	for _, source := range text.Compaction.Sources {
		if id, err := ulid.ParseStrict(source); err != nil || id.String() != source {
			c.fault(block.MetaName, -1, "", "one of its sources is %q", source)
		}
	}
}

// index checks the index and, in step with its series, the chunks.
func (c *check) index(segs *segments) error {
	size, ok := c.files[block.IndexName]
	if !ok {
		c.noIndex, c.unread = true, true
		if c.sum.Meta == nil || !named(c.sum.Meta, block.IndexName) { // else it was said
			c.fault(block.IndexName, -1, "", "it is missing")
		}
		return nil
	}
	f := c.beside(block.IndexName, size)
	if err := c.header(f); err != nil {
		return err
	}
	t, ok, err := c.contents(f)
	if err != nil || !ok {
		c.noIndex, c.unread = true, true
		return err
	}
	table, err := c.symbols(f, t)
	if err != nil {
		return err
	}
	if table == nil {
		c.unread = true
	}
	if err := c.series(c.open(block.IndexName, size), table, segs, t.Series, t.LabelIndices); err != nil {
		return err
	}
	if err := c.records(f, "values of a label", t.LabelIndices, t.Postings); err != nil {
		return err
	}
	if err := c.records(f, "table of labels", t.LabelIndicesTable, t.PostingsTable); err != nil {
		return err
	}
	said, ok, err := c.postings(f, c.open(block.IndexName, size), t)
	if err != nil {
		return err
	}
	if ok && !c.unread {
		c.compare(f, t, c.all, said)
	}
	return nil
}

// counts compares meta.json with what was found. A part that could not be read has been reported as such.
func (c *check) counts() {
	m := c.sum.Meta
	if m == nil || c.unread {
		return
	}
	var wrong []string
	compare := func(what string, said, found uint64) {
		if said != found {
			wrong = append(wrong, fmt.Sprintf("%d %s instead of %d", said, what, found))
		}
	}
	compare("series", m.Stats.NumSeries, c.sum.Series)
	compare("chunks", m.Stats.NumChunks, c.sum.Chunks)
	compare("samples", m.Stats.NumSamples, c.sum.Samples())
	if m.Stats.NumFloatSamples+m.Stats.NumHistogramSamples > 0 { // old releases did not count them
		compare("float samples", m.Stats.NumFloatSamples, c.sum.FloatSamples)
		compare("histogram samples", m.Stats.NumHistogramSamples, c.sum.HistogramSamples)
	}
	if len(wrong) > 0 {
		c.fault(block.MetaName, -1, "", "it says %s", strings.Join(wrong, ", "))
	}
}

func named(m *block.Meta, name string) bool {
	if m.Thanos == nil {
		return false
	}
	for _, f := range m.Thanos.Files {
		if f.Name == name && f.SizeBytes > 0 {
			return true
		}
	}
	return false
}

// Gather is Check with the faults in a slice, at most limit of them.
func Gather(ctx context.Context, src Source, id ulid.ULID, limit int) (faults []Fault, sum *Summary, err error) {
	sum, err = Check(ctx, src, id, Options{}, func(f Fault) {
		if len(faults) < limit {
			faults = append(faults, f)
		}
	})
	return faults, sum, err
}
