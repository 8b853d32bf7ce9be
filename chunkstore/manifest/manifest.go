// Package manifest owns the truth about which blocks a tenant has in the bucket: a sequence of immutable, numbered
// snapshots, each created by a put that fails when the number is taken. It refuses to guess: a manifest that cannot be
// read is an error, never an empty one. Read package reader next for how a query reads the blocks of one version.
package manifest

import (
	"github.com/oklog/ulid/v2"
)

// Block is what the manifest knows of one block: enough to plan queries and compactions without reading the bucket.
type Block struct {
	ULID ulid.ULID `json:"ulid"`
	// MinTime and MaxTime bound the samples, half-open [MinTime, MaxTime), in milliseconds since the Unix epoch.
	MinTime int64 `json:"min_time"`
	MaxTime int64 `json:"max_time"`
	// Level is the compaction level, 1 as shipped by an ingester.
	Level int `json:"level"`
	// Sources are the blocks of level 1 whose samples this one holds, itself included at level 1.
	Sources []ulid.ULID `json:"sources"`
	Series  uint64      `json:"series"`
	Samples uint64      `json:"samples"`
	Chunks  uint64      `json:"chunks"`
	// SizeBytes is the sum of all objects of the block but its sidecar.
	SizeBytes int64 `json:"size_bytes"`
	// SidecarBytes is the size of the block's sidecar, DirectoryBytes that of the directory at the sidecar's end. 0 means
	// that none is known.
	SidecarBytes   int64 `json:"sidecar_bytes,omitempty"`
	DirectoryBytes int64 `json:"directory_bytes,omitempty"`
	// IndexBytes is the size of the object "index", 0 when it is unknown.
	IndexBytes int64 `json:"index_bytes,omitempty"`
	// Writer is duramen.writer of meta.json: who wrote the block; empty for a block of a peer.
	Writer string `json:"writer,omitempty"`
	// OutOfOrder is set for blocks cut from out-of-order samples; they overlap others by nature.
	OutOfOrder bool `json:"out_of_order,omitempty"`
	// Labels are external labels, to be added to each series of the block. Names that peers use among themselves, such as
	// __org_id__, are left out.
	Labels map[string]string `json:"labels,omitempty"`
	// Shard names the part of its sources' series that the block holds, as the compactor of a peer calls it: blocks of
	// different shards have the same sources and no series in common. Empty means all series.
	Shard string `json:"shard,omitempty"`
	// NoCompact is why the block must not be compacted; empty when it may.
	NoCompact string `json:"no_compact,omitempty"`
	// Deleted says that the block's bytes have none of the samples that deletions with this ID and below it meant, as far
	// as they concerned what the block was made of. 0 means that none is worked in.
	Deleted uint64 `json:"deleted,omitempty"`
	// AddedAt is when the block entered the manifest, in milliseconds since the Unix epoch by the owner's clock.
	AddedAt int64 `json:"added_at"`
	// AddedVersion is the first manifest version that lists the block.
	AddedVersion uint64 `json:"added_version"`
}

// Overlaps reports whether the block can hold samples with mint ≤ t ≤ maxt, both inclusive.
func (b *Block) Overlaps(mint, maxt int64) bool { return b.MinTime <= maxt && mint < b.MaxTime }

// Manifest is one immutable version. Do not change it, nor what its methods return: it is shared.
type Manifest struct {
	// Tenant names whose blocks these are.
	Tenant string `json:"tenant"`
	// Version counts from 1; 0 is the state of a tenant that never had a block.
	Version uint64 `json:"version"`
	// SwapID is random and tells an own put whose answer was lost from a rival's.
	SwapID string `json:"swap_id"`
	// Blocks are sorted by MinTime, then ULID.
	Blocks []Block `json:"blocks"`
	// Removed remembers blocks that left the manifest, so that a late announcement or a listing does not bring them
	// back. Entries stay until a sweep has seen the objects gone, and 48 h at least; as long as there is no sweep, for
	// ever.
	Removed []RemovedBlock `json:"removed,omitempty"`
	// Lost are the times of which samples were lost after they had been accepted, sorted by MinTime, MaxTime, Reason. A
	// query that touches one has to say so.
	Lost []LostRange `json:"lost,omitempty"`
	// Deletions are the samples that are to be hidden from queries and taken out of the blocks, sorted by ID. An entry
	// stays when no block holds such samples any more, for one that an ingester ships late.
	Deletions []Deletion `json:"deletions,omitempty"`
	// NextDeletion is the ID that the next deletion gets; 0 as long as there was none, and means 1.
	NextDeletion uint64 `json:"next_deletion,omitempty"`
	// Doomed is set from the request to delete the tenant on, and stays when nothing is left of it.
	Doomed *TenantDeletion `json:"tenant_deletion,omitempty"`
}

// LostRange says that samples of some series with MinTime ≤ t < MaxTime are gone. Times are in milliseconds since the
// Unix epoch.
type LostRange struct {
	MinTime int64 `json:"min_time"`
	MaxTime int64 `json:"max_time"`
	// Reason is a sentence for people: what happened where.
	Reason string `json:"reason"`
}

// RemovedBlock is a block that must not come back when a listing still shows it.
type RemovedBlock struct {
	ULID ulid.ULID `json:"ulid"`
	// RemovedAt is in milliseconds since the Unix epoch.
	RemovedAt int64 `json:"removed_at"`
	// Dropped is set when its samples were to go with it: no block that is made of it may come back either.
	Dropped bool `json:"dropped,omitempty"`
	// KeepUntil is until when its objects stay in the bucket, in milliseconds since the Unix epoch: somebody may want to
	// look at them. 0 means that nobody does.
	KeepUntil int64 `json:"keep_until,omitempty"`
}

// TenantDeletion says that a tenant is to be deleted or was. Times are in milliseconds since the Unix epoch.
type TenantDeletion struct {
	RequestedAt int64 `json:"requested_at"`
	// GraceUntil is until when the request can be taken back without a loss.
	GraceUntil int64 `json:"grace_until"`
	// FinishedAt is when nothing was left of the tenant, 0 before that. From then on the tenant may begin anew.
	FinishedAt int64 `json:"finished_at,omitempty"`
	// Blocks and Bytes are what was deleted.
	Blocks int   `json:"blocks,omitempty"`
	Bytes  int64 `json:"bytes,omitempty"`
}

// Added is the answer to the announcement of a block.
type Added struct {
	// Version is the first manifest version that lists the block or the one that covers it; of a removed block it is
	// a version that remembers the removal.
	Version uint64
	// Covered is set when the block's samples are in the manifest already under another ULID, or were removed. The
	// block is not added, and its local copy is needed no more.
	Covered bool
}
