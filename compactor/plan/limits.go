package plan

import (
	"math"
	"time"

	"github.com/oklog/ulid/v2"
)

// ShippedUnknown is the ShippedUpTo of somebody who does not know.
const ShippedUnknown = math.MinInt64

// DefaultMaxIndexBytes keeps an index well below the 64 GiB at which the format of the index ends.
const DefaultMaxIndexBytes = 32 << 30

// DefaultMaxInputs is two replicas of three more than a day of three replicas has, since each input costs a merge memory.
const DefaultMaxInputs = 60

// DefaultDeletionDelay is how long a deletion waits for others before blocks are rewritten for it.
const DefaultDeletionDelay = time.Hour

// Limits are what a plan depends on beside the manifest and the time. The zero value works: it knows nothing of ingesters
// and keeps everything for ever.
type Limits struct {
	// ShippedUpTo is the lowest of all ACTIVE ingesters', in milliseconds since the Unix epoch: no accepted sample that is
	// older is outside the bucket. Take it before the manifest, not after. ShippedUnknown, or 0, when nobody knows.
	ShippedUpTo int64
	// OutOfOrderWindow is how much older than a tenant's newest sample one may be that is still accepted.
	OutOfOrderWindow time.Duration
	// Retention is how long samples are kept; 0 is for ever. What expires soon is left alone.
	Retention time.Duration
	// Replicas is how many ingesters hold each series, at least 1: by it the size of an output is predicted.
	Replicas int
	// MaxIndexBytes is the largest index to build, by prediction; 0 means DefaultMaxIndexBytes.
	MaxIndexBytes int64
	// MaxInputs is the most blocks that one job merges; 0 means DefaultMaxInputs, and less than 2 is taken as 2.
	MaxInputs int
	// DeletionDelay is how old a deletion is before blocks are rewritten for its sake alone. With 0 that is done at once,
	// also for blocks that will be merged soon.
	DeletionDelay time.Duration
	// Settled says that late data has come in full, so that more is not waited for: somebody has asked for the work.
	Settled bool
	// Excluded are blocks that no job may take now, with the reason for people, such as a damaged one that could not be
	// salvaged yet.
	Excluded map[ulid.ULID]string
	// Refused are jobs by ID that must not be tried again with these inputs, with the reason for people, such as an output
	// that turned out to be too large. A day that is refused is left as slots.
	Refused map[string]string
	// Foreign are blocks that somebody else deletes, with what was seen of it for people. While there are any, there are no
	// jobs.
	Foreign map[ulid.ULID]string
}

func (l *Limits) maxIndexBytes() int64 {
	if l.MaxIndexBytes <= 0 {
		return DefaultMaxIndexBytes
	}
	return l.MaxIndexBytes
}

func (l *Limits) maxInputs() int {
	if l.MaxInputs == 0 {
		return DefaultMaxInputs
	}
	return max(2, l.MaxInputs)
}
