package salvage

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// reportVersion is that of the report's format.
const reportVersion = 1

// The bounds of a report: beyond them things are counted and not named.
const (
	maxFaults = 50 // of each file
	maxNamed  = 1000
	maxRanges = 16
)

// ReportKey returns where the report about a block lies: <tenant>/duramen/quarantine/<ulid>.json.
func ReportKey(tenant string, id ulid.ULID) string {
	return fmt.Sprintf("%s/duramen/quarantine/%s.json", tenant, id)
}

// Report says what was wrong with a block and what became of its samples. All times are in milliseconds since the Unix
// epoch.
type Report struct {
	Version int    `json:"version"`
	Tenant  string `json:"tenant"`
	// Block is the damaged block, as the manifest listed it.
	Block manifest.Block `json:"block"`
	// NewBlock is the block that takes its place, empty when nothing could be read.
	NewBlock string `json:"new_block,omitempty"`
	// WrittenAt is when, Writer who salvaged.
	WrittenAt int64  `json:"written_at"`
	Writer    string `json:"writer"`
	// Cause is what led to the salvage, for people.
	Cause string `json:"cause,omitempty"`
	// Files are the objects with something wrong.
	Files []FileFaults `json:"files"`

	// Recovered is what the new block holds.
	Recovered Count `json:"recovered"`
	// Restored is how many of its samples could not be read of the damaged block, and are from those that it was made of:
	// RestoredFrom. Of a dry run these are the blocks that would be read for it, and the report is as without them.
	Restored     uint64   `json:"restored_samples,omitempty"`
	RestoredFrom []string `json:"restored_from,omitempty"`
	// Covered is what could not be read here and is in other blocks, byte for byte; CoveredBy are those blocks.
	Covered   Count    `json:"covered"`
	CoveredBy []string `json:"covered_by,omitempty"`
	// Lost is what is gone. Lost.Samples is exact when SamplesExact is set; else at least that many.
	Lost         Count `json:"lost"`
	SamplesExact bool  `json:"samples_exact"`
	// Lossless is set when nothing is lost.
	Lossless bool `json:"lossless"`
	// Ranges hold all times of lost samples.
	Ranges []Range `json:"lost_ranges,omitempty"`
	// LostSeries name what is lost, at most a thousand; Unnamed is how many more there are.
	LostSeries []LostSeries `json:"lost_series,omitempty"`
	Unnamed    int          `json:"lost_series_unnamed,omitempty"`
}

// Count is how much there is of something.
type Count struct {
	// Series are those of which nothing is left, in Report.Lost, and all that have a chunk, elsewhere.
	Series  uint64 `json:"series"`
	Chunks  uint64 `json:"chunks"`
	Samples uint64 `json:"samples"`
}

// FileFaults are the faults of one object. Of many the first are named.
type FileFaults struct {
	File   string  `json:"file"`
	Faults []Fault `json:"faults"`
	// More is how many faults are not named.
	More int `json:"more,omitempty"`
}

// Fault is one thing that is wrong with an object.
type Fault struct {
	// Offset is the byte in the object, -1 where it is the object as a whole.
	Offset int64 `json:"offset"`
	// Series names the series that suffers, empty where it is none or not known.
	Series string `json:"series,omitempty"`
	Text   string `json:"text"`
}

// Range holds times with MinTime ≤ t < MaxTime.
type Range struct {
	MinTime int64 `json:"min_time"`
	MaxTime int64 `json:"max_time"`
}

// LostSeries is a series with chunks that are lost.
type LostSeries struct {
	// Series are the labels, empty when they are lost, too.
	Series string `json:"series,omitempty"`
	// Chunks are lost, and their samples are within [MinTime, MaxTime).
	Chunks uint64 `json:"chunks"`
	// Samples of the lost chunks, 0 when that is not known.
	Samples uint64 `json:"samples,omitempty"`
	MinTime int64  `json:"min_time"`
	MaxTime int64  `json:"max_time"`
	// Whole is set when nothing is left of the series in this block.
	Whole bool `json:"whole,omitempty"`
}

// Marshal encodes the report. Equal reports give equal bytes.
func (r *Report) Marshal() ([]byte, error) {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode report about block %s: %w", r.Block.ULID, err)
	}
	return append(data, '\n'), nil
}

// LostRanges returns what a manifest has to remember of the loss, so that queries say it.
func (r *Report) LostRanges() (lost []manifest.LostRange) {
	for _, x := range r.Ranges {
		lost = append(lost, manifest.LostRange{
			MinTime: x.MinTime, MaxTime: x.MaxTime,
			Reason: fmt.Sprintf("block %s was damaged and is salvaged in part", r.Block.ULID),
		})
	}
	return lost
}

// merged returns ranges that hold all of them, sorted, at most limit: those with the smallest gaps between them become
// one.
func merged(ranges []Range, limit int) []Range {
	slices.SortFunc(ranges, func(a, b Range) int {
		switch {
		case a.MinTime < b.MinTime:
			return -1
		case a.MinTime > b.MinTime:
			return 1
		default:
			return 0
		}
	})
	var out []Range
	for _, r := range ranges {
		if n := len(out); n > 0 && r.MinTime <= out[n-1].MaxTime {
			out[n-1].MaxTime = max(out[n-1].MaxTime, r.MaxTime)
			continue
		}
		out = append(out, r)
	}
	if len(out) <= limit {
		return out
	}
	gaps := make([]int64, 0, len(out)-1)
	for i := 1; i < len(out); i++ {
		gaps = append(gaps, out[i].MinTime-out[i-1].MaxTime)
	}
	slices.Sort(gaps)
	closed, joined := gaps[len(out)-limit-1], out[:1]
	for _, r := range out[1:] {
		if last := &joined[len(joined)-1]; r.MinTime-last.MaxTime <= closed {
			last.MaxTime = r.MaxTime
			continue
		}
		joined = append(joined, r)
	}
	return joined
}
