package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

// verdict is what a block in the bucket that the manifest does not know turns out to be.
type verdict string

const (
	// verdictWhole is a block that is complete, as far as can be told without reading it.
	verdictWhole verdict = "whole"
	// verdictIncomplete has no meta.json, or objects are missing or have another size than meta.json says.
	verdictIncomplete verdict = "incomplete"
	// verdictDoubtful has a meta.json that cannot be read or cannot be true.
	verdictDoubtful verdict = "doubtful"
	// verdictDownsampled is a block that Thanos has thinned out: it does not hold the samples that were sent.
	verdictDownsampled verdict = "downsampled"
)

// candidate is a block in the bucket that the manifest does not know.
type candidate struct {
	verdict verdict
	reason  string // for people, when it is not whole
	block   manifest.Block
	// listed is set when meta.json names the block's objects with their sizes. Only then a meta.json was certainly
	// written last.
	listed bool
}

// futureTolerance is how far a block may reach beyond the time when it was written. Samples are accepted that are half
// an hour ahead at most, by a clock that may be wrong.
const futureTolerance = 24 * time.Hour

// judge reads the meta.json of a block and compares it with the objects in its folder. An error is one of the bucket.
func judge(ctx context.Context, bkt bucket.Bucket, tenantID string, id ulid.ULID, f *folder) (*candidate, error) {
	object, ok := f.meta()
	if !ok {
		return &candidate{verdict: verdictIncomplete, reason: "it has no meta.json"}, nil
	}
	m, err := block.FetchMeta(ctx, bkt, tenantID, id)
	switch {
	case errors.Is(err, block.ErrNoMeta):
		return &candidate{verdict: verdictIncomplete, reason: "its meta.json went away"}, nil
	case errkind.Of(err) == errkind.Corrupt:
		return &candidate{verdict: verdictDoubtful, reason: err.Error()}, nil
	case err != nil:
		return nil, err
	}
	c := &candidate{verdict: verdictWhole, block: m.ManifestBlock(object.Size)}
	files, complete := m.Files()
	c.listed = complete
	switch {
	case m.Thanos != nil && m.Thanos.Downsample.Resolution > 0:
		c.verdict, c.reason = verdictDownsampled, fmt.Sprintf("its resolution is %d ms", m.Thanos.Downsample.Resolution)
	case complete:
		c.compareFiles(f, files)
	default:
		c.lookForFiles(f)
	}
	if c.verdict == verdictWhole {
		c.doubt(tenantID, m, object.LastModified)
	}
	if len(f.noCompact) > 0 { // so that it is not compacted before the next pass
		c.block.NoCompact, err = noCompactReason(ctx, bkt, id, f)
	}
	return c, err
}

// compareFiles compares the folder with the list in meta.json.
func (c *candidate) compareFiles(f *folder, files []block.File) {
	for _, file := range files {
		o, ok := f.files[file.Name]
		switch {
		case !ok:
			c.verdict, c.reason = verdictIncomplete, file.Name+" is missing"
		case o.Size != file.SizeBytes:
			c.verdict = verdictIncomplete
			c.reason = fmt.Sprintf("%s has %d bytes instead of %d", file.Name, o.Size, file.SizeBytes)
		}
	}
}

// lookForFiles looks for what any block has, when there is no list. The size of the block is that of its objects.
func (c *candidate) lookForFiles(f *folder) {
	segments, whole := f.segments()
	index, ok := f.files[block.IndexName]
	switch {
	case !ok || index.Size == 0:
		c.verdict, c.reason = verdictIncomplete, "its index is missing"
	case !whole || segments == 0 && c.block.Chunks > 0:
		c.verdict, c.reason = verdictIncomplete, fmt.Sprintf("it has %d files of chunks, with gaps", segments)
	}
	c.block.SizeBytes += f.dataBytes() // which is meta.json only so far
}

// doubt looks for what cannot be true: a meta.json has no checksum.
func (c *candidate) doubt(tenantID string, m *block.Meta, written time.Time) {
	b, s := &c.block, m.Stats
	born := ulid.Time(b.ULID.Time())
	if written.After(born) {
		born = written
	}
	doubts := ""
	switch {
	case b.MinTime == b.MaxTime && b.Samples > 0:
		doubts = "its time range is empty"
	case b.MaxTime > born.Add(futureTolerance).UnixMilli():
		doubts = fmt.Sprintf("it reaches to %d and was written at %d", b.MaxTime, born.UnixMilli())
	case s.NumSamples > 0 && (s.NumChunks > s.NumSamples || s.NumChunks == 0 || s.NumSeries > s.NumChunks):
		doubts = fmt.Sprintf("it counts %d samples in %d chunks of %d series", s.NumSamples, s.NumChunks, s.NumSeries)
	case s.NumFloatSamples+s.NumHistogramSamples > 0 && s.NumFloatSamples+s.NumHistogramSamples != s.NumSamples:
		doubts = fmt.Sprintf("it counts %d floats and %d histograms, together %d samples",
			s.NumFloatSamples, s.NumHistogramSamples, s.NumSamples)
	case s.NumTombstones > 0:
		doubts = fmt.Sprintf("it has %d tombstones, which nothing here reads", s.NumTombstones)
	case m.TenantLabel() != "" && m.TenantLabel() != tenantID:
		doubts = fmt.Sprintf("it was written for tenant %q", m.TenantLabel())
	}
	if doubts != "" {
		c.verdict, c.reason = verdictDoubtful, doubts
	}
}
