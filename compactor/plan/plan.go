package plan

import (
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// Kind says what a job is for.
type Kind string

const (
	// KindSlot merges the blocks of a slot of two hours, replicas for the most part.
	KindSlot Kind = "slot"
	// KindDay merges all blocks of a day.
	KindDay Kind = "day"
	// KindLate merges what arrived late, with one another or into what was merged before.
	KindLate Kind = "late"
	// KindRewrite writes one block anew without deleted samples.
	KindRewrite Kind = "rewrite"
)

// Kinds are all of them.
func Kinds() []Kind { return []Kind{KindSlot, KindDay, KindLate, KindRewrite} }

// Reason is why blocks are left as they are. The set is closed: it is the label of a metric.
type Reason string

const (
	// SkipTenantDeletion means that the tenant is to be deleted. There are no jobs.
	SkipTenantDeletion Reason = "tenant_deletion"
	// SkipForeignCompactor means that the compactor of a peer works on the tenant's blocks. There are no jobs meanwhile.
	SkipForeignCompactor Reason = "foreign_compactor"
	// SkipOversized means that the index of the output would be too large.
	SkipOversized Reason = "oversized"
	// SkipExcluded means blocks that the caller excluded, damaged ones for the most part.
	SkipExcluded Reason = "excluded"
	// SkipRefused means a job that the caller refused.
	SkipRefused Reason = "refused"
	// SkipNoCompact means blocks that bear a mark against compaction.
	SkipNoCompact Reason = "no_compact"
	// SkipSpansDays means blocks of a peer that lie in more than one day.
	SkipSpansDays Reason = "spans_days"
	// SkipExpiring means blocks that retention will remove soon.
	SkipExpiring Reason = "expiring"
)

// Reasons are all of them.
func Reasons() []Reason {
	return []Reason{
		SkipTenantDeletion, SkipForeignCompactor, SkipOversized, SkipExcluded, SkipRefused, SkipNoCompact, SkipSpansDays,
		SkipExpiring,
	}
}

// Plan is what to do for a tenant. Times are in milliseconds since the Unix epoch, ranges half-open.
type Plan struct {
	Tenant string `json:"tenant"`
	// Version is that of the manifest.
	Version uint64 `json:"version"`
	Now     int64  `json:"now"`
	// Blocks is how many the manifest lists.
	Blocks int `json:"blocks"`
	// Jobs have no input in common and may run in any order and at the same time. Merges come first, oldest first, then
	// rewrites, oldest first: there may be many of those at once, and queries do not wait for them.
	Jobs []Job `json:"jobs"`
	// Slots are the slots of two hours, and the days in place of their slots once these are over, that have blocks which
	// may be compacted; sorted by time.
	Slots []Slot `json:"slots"`
	// Skips are what is left alone, worst first.
	Skips []Skip `json:"skips"`
	// OldestUncompacted is since when the oldest slot waits that should be compacted by now: the end of the slot, or a
	// later time when its blocks came later than that. 0 means that nothing waits.
	OldestUncompacted int64 `json:"oldest_uncompacted"`
}

// Uncompacted is how many slots should be compacted by now and are not.
func (p *Plan) Uncompacted() int {
	n := 0
	for i := range p.Slots {
		if p.Slots[i].Since != 0 {
			n++
		}
	}
	return n
}

// Age is for how long the oldest slot waits that should be compacted by now; 0 when none does.
func (p *Plan) Age() time.Duration {
	if p.OldestUncompacted == 0 {
		return 0
	}
	return time.Duration(max(0, p.Now-p.OldestUncompacted)) * time.Millisecond
}

// Job is one piece of work: blocks that become one block.
type Job struct {
	// ID names the work: equal inputs and deletions have equal IDs, whoever plans them when.
	ID   string `json:"id"`
	Kind Kind   `json:"kind"`
	// Reason is a sentence for people.
	Reason string `json:"reason"`
	// MinTime and MaxTime bound the inputs, and so the output.
	MinTime int64 `json:"min_time"`
	MaxTime int64 `json:"max_time"`
	// Level is that of the output.
	Level int `json:"level"`
	// Labels and Shard are those of every input and of the output.
	Labels map[string]string `json:"labels,omitempty"`
	Shard  string            `json:"shard,omitempty"`
	// Inputs are sorted as in the manifest; Blocks are their ULIDs.
	Inputs []manifest.Block `json:"-"`
	Blocks []ulid.ULID      `json:"blocks"`
	// Deletions are those to be worked in, by ID, each in the inputs that it concerns (manifest.Deletion.Concerns).
	Deletions []manifest.Deletion `json:"deletions,omitempty"`
	// DeletedThrough is manifest.Block.Deleted of the output.
	DeletedThrough uint64 `json:"deleted_through,omitempty"`
	// InputSamples and InputBytes are sums over the inputs.
	InputSamples uint64 `json:"input_samples"`
	InputBytes   int64  `json:"input_bytes"`
	// EstimatedIndexBytes is how large the index of the output will be, roughly.
	EstimatedIndexBytes int64 `json:"estimated_index_bytes"`
}

// State says how far a slot is.
type State string

const (
	// StateOpen is a slot that ingesters still write to.
	StateOpen State = "open"
	// StateReady is one that a job of this plan is for.
	StateReady State = "ready"
	// StateHeld is one that should be compacted and is not: a skip says why.
	StateHeld State = "held"
	// StateDone is one that needs nothing now.
	StateDone State = "done"
)

// Slot is a slot or a day that has blocks, of one set of external labels and one shard.
type Slot struct {
	MinTime int64             `json:"min_time"`
	MaxTime int64             `json:"max_time"`
	Labels  map[string]string `json:"labels,omitempty"`
	Shard   string            `json:"shard,omitempty"`
	State   State             `json:"state"`
	Blocks  int               `json:"blocks"`
	Samples uint64            `json:"samples"`
	Bytes   int64             `json:"bytes"`
	// Since is since when the slot waits that should be compacted by now, 0 when it need not be.
	Since int64 `json:"since,omitempty"`
}

// Skip names blocks that are left as they are.
type Skip struct {
	Reason Reason `json:"reason"`
	// Detail is a sentence for people: what is the matter, and what to do if it should not be so.
	Detail  string      `json:"detail"`
	Blocks  []ulid.ULID `json:"blocks"`
	MinTime int64       `json:"min_time"`
	MaxTime int64       `json:"max_time"`
	// Blocking is set when the blocks should be compacted by now: somebody has to look.
	Blocking bool `json:"blocking"`
}
