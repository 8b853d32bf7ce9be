package merge

import (
	"context"
	"fmt"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// Job is what is to be merged into what.
type Job struct {
	// ULID names the output. It must be new: nothing of it may be in the bucket.
	ULID ulid.ULID
	// Writer is stored as duramen.writer; it begins with manifest.CompactorWriter.
	Writer string
	// MinTime and MaxTime are the output's range in milliseconds, half-open; both 0 means that of all inputs together. A
	// range that is wider than that is cut to it, one that is narrower is an error.
	MinTime, MaxTime int64
	// Level is the output's compaction level.
	Level int
	// Inputs are distinct blocks; they may overlap. One alone is rewritten.
	Inputs []Input
	// Deletions are those that inputs name, each once. A series is compared with those alone that it can match, once for all
	// inputs.
	Deletions []manifest.Deletion
	// DeletedThrough is manifest.Block.Deleted of the output: all deletions up to it that concern the output have been
	// applied by an input or are in its Deletions.
	DeletedThrough uint64
	// Labels are the external labels that all inputs have. They are stored beside the block, not in its series.
	Labels map[string]string
	// Shard is the part of their sources' series that all inputs hold, as manifest.Block has it.
	Shard string
	// Rest, unless it is nil, is called every thousand series while they are merged, and every few MiB while the output is
	// read back, by the goroutine that does the work: the job stands still until it returns. No request is open then, but
	// for what is read ahead and sent in the background.
	Rest func()
}

// Input is one block to read.
type Input struct {
	Block manifest.Block
	// Deletions are the IDs of those that its samples have not seen yet.
	Deletions []uint64
}

// Result says what became of a job.
type Result struct {
	// Block is the output as a manifest lists it, with AddedAt and AddedVersion left open. It is the zero value when the
	// output is Empty.
	Block manifest.Block
	// Empty is set when no sample is left. Nothing was written then.
	Empty bool

	// Each sample of the inputs is in the output, is the Duplicate of one that is, is Deleted, or lies Outside of the
	// range of all inputs, where no query looks for it: InputSamples is the sum of the other four.
	InputSamples, OutputSamples, Duplicates, Deleted, Outside uint64
	// Conflicts counts the times at which inputs had different floats. One of them is in the output; the others count as
	// Duplicates.
	Conflicts uint64

	// ChunksCopied went into the output as they were in an input, ChunksEncoded were made anew. ChunksDropped were
	// identical to one that was copied, ChunksDecoded were read sample by sample.
	ChunksCopied, ChunksEncoded, ChunksDropped, ChunksDecoded uint64

	// BytesRead were read of the inputs, BytesVerified of the output, BytesWritten were put into the bucket.
	BytesRead, BytesVerified, BytesWritten int64
	// PeakDisk is the most that lay in the scratch folder, in bytes.
	PeakDisk int64
}

// Run merges the inputs into one block in the bucket. When it returns without error the block is complete and verified,
// and nothing but an entry in the manifest is missing. progress may be nil.
//
// Before meta.json is written, all of the output is read back from the bucket, each checksum compared and each sample
// decoded. What that says has to agree with sums that were made of the inputs, not of the output. After an error there
// is no meta.json, unless the answer to the put of it was lost; objects of the output may be there, for the sweep of
// orphans.
//
// A request that fails is repeated for as long as the job has taken before, and for a quarter of an hour at most, so that
// what was done of it is not done again for a bucket that was away for a while.
//
// Errors: *Damaged names an input that cannot be read, *Disputed one of which that is not sure; *Gone one that is not there; *TooLarge says that the output
// cannot be built; *Lost that the output is not what the inputs should have given. One of kind Unavailable may pass:
// the bucket or the disk failed. The error of ctx is returned as it is. In all cases the scratch folder is empty, and
// no goroutine is left.
func Run(
	ctx context.Context, cfg Config, bkt bucket.Bucket, tenantID string, job Job, progress *Progress,
) (*Result, error) {
	j := &run{ctx: ctx, cfg: cfg.withDefaults(), bkt: bkt, tenant: tenantID, job: job, progress: progress}
	result, err := j.do()
	if err != nil {
		return nil, fmt.Errorf("merge %d blocks into %s: %w", len(job.Inputs), job.ULID, err)
	}
	return result, nil
}
