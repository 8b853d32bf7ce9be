package ingester

import (
	"github.com/oklog/ulid/v2"
)

// openReport says what openTSDB found in a tenant's folder and what it did about it.
type openReport struct {
	// Unclean is set when the last use of the folder did not end with markClean: a kill, a crash or a power cut.
	Unclean bool
	// TornTails are logs whose last record was incomplete, as a kill leaves them. Nothing acknowledged was in it.
	TornTails []logDamage
	// LostWAL is damage that no kill explains. Acknowledged samples may be gone: the replica is like one with a lost disk
	// until an operator removes the folder named in Aside. It includes damage found by earlier opens and not yet removed.
	LostWAL []logDamage
	// Quarantined are all blocks set aside, by this open or an earlier one. A query over their range must fail by name
	// unless the manifest lists the block.
	Quarantined []quarantinedBlock
	// HeadChunkFiles is how many files of chunks_head were set aside. Replay rebuilds what they held from the logs.
	HeadChunkFiles int
}

// logDamage is one stretch of a write log that cannot be read.
type logDamage struct {
	// Log is the log's folder relative to the tenant's: "wal", "wbl" or "wal/checkpoint.00000012".
	Log string `json:"log"`
	// Segment is the number of the segment file; Offset is where in it the unreadable stretch of Bytes bytes begins.
	Segment int   `json:"segment"`
	Offset  int64 `json:"offset"`
	Bytes   int64 `json:"bytes"`
	// Behind is how many bytes of the log follow the stretch. They were kept and replayed; stock would delete them.
	Behind int64 `json:"behind"`
	// Reason is what the reader said.
	Reason string `json:"reason"`
	// Aside is the folder that keeps the log as it was found; empty for a torn tail.
	Aside string `json:"aside,omitempty"`
}

// quarantinedBlock is a local block that could not be read and was moved to the quarantine folder.
type quarantinedBlock struct {
	ULID ulid.ULID `json:"ulid"`
	// MinTime and MaxTime bound the samples, half-open, in milliseconds; the whole int64 range unless Known.
	MinTime int64 `json:"min_time"`
	MaxTime int64 `json:"max_time"`
	Known   bool  `json:"known"`
	// Reason is the error that the block was refused with.
	Reason string `json:"reason"`
	// Dir is where the block is now.
	Dir string `json:"-"`
}
