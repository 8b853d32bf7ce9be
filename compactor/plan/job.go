package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/cli"
)

// job completes work.
func (p *planner) job(w *work) *Job {
	first := w.inputs[0]
	j := &Job{
		Kind: w.kind, Reason: w.reason, MinTime: first.MinTime, MaxTime: first.MaxTime, Level: max(2, w.level),
		Labels: first.Labels, Shard: first.Shard, Blocks: ids(w.inputs),
		EstimatedIndexBytes: estimateIndex(w.inputs, p.limits.Replicas),
	}
	for _, b := range w.inputs {
		j.MinTime, j.MaxTime = min(j.MinTime, b.MinTime), max(j.MaxTime, b.MaxTime)
		j.Level = max(j.Level, b.Level)
		j.Inputs = append(j.Inputs, *b)
		j.InputSamples += b.Samples
		j.InputBytes += b.SizeBytes
	}
	j.DeletedThrough = max(1, p.manifest.NextDeletion) - 1
	if j.Deletions = w.deletions; j.Deletions == nil {
		j.Deletions = p.deletions(w.inputs)
	}
	j.ID = j.identity()
	return j
}

// identity is a hash of what the job does.
func (j *Job) identity() string {
	h := sha256.New()
	for _, id := range j.Blocks {
		h.Write(id[:])
	}
	var id []byte
	for i := range j.Deletions {
		id = strconv.AppendUint(append(id[:0], '/'), j.Deletions[i].ID, 10)
		h.Write(id)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// refuses returns why a merge must not be tried, "" when it may.
func (p *planner) refuses(j *Job) (Reason, string) {
	if why, refused := p.limits.Refused[j.ID]; refused {
		return SkipRefused, fmt.Sprintf("job %s: %s", j.ID, why)
	}
	if limit := p.limits.maxIndexBytes(); j.EstimatedIndexBytes > limit {
		return SkipOversized, fmt.Sprintf("the index of the merged block would have about %s, and %s is the limit; the tenant has "+
			"too many series for one block: lower their number, or raise the limit", cli.Bytes(j.EstimatedIndexBytes), cli.Bytes(limit))
	}
	return "", ""
}

// Bytes of an index, as blocks of metrics from Kubernetes have them: a series with its labels and postings, where the
// manifest does not know the index' size, and a chunk.
const (
	seriesBytes = 120
	chunkBytes  = 10
)

// churn is one part in how many of a slot's series that the slots before it did not have, for the prediction.
const churn = 4

// estimateIndex predicts the index of what the blocks become. Replicas have series and chunks in common, slots have series
// in common. It is rather too small than too large: an output that grows beyond the limit is given up, while work that was
// never tried would stay undone for ever.
func estimateIndex(inputs []*manifest.Block, replicas int) int64 {
	slots := map[int64]int64{}
	least, chunks, sum, most := int64(0), int64(0), int64(0), int64(0)
	for _, b := range inputs {
		copies := int64(1)
		if b.Level == 1 {
			copies = int64(max(1, replicas))
		}
		ofChunks := int64(b.Chunks) * chunkBytes
		ofSeries := int64(b.Series) * seriesBytes
		if b.IndexBytes > 0 {
			ofSeries = max(0, b.IndexBytes-ofChunks)
		}
		least = max(least, ofSeries+ofChunks)
		chunks += ofChunks / copies
		sum += ofSeries / copies
		slot := aligned(b.MinTime, slotLength).mint
		slots[slot] += ofSeries / copies
		most = max(most, slots[slot])
	}
	return max(least, most+(sum-most)/churn+chunks)
}
