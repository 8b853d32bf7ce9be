// Package bucketcopy owns the copying of tenants from one bucket to another: resumable at any byte, verified, and in an
// order in which a reader of the destination never meets a name before what it names. It refuses a destination that has a
// history of its own, and never overwrites what differs. Read copy.go first, then package manifest for what a history is.
//
// A copy is consistent although the source is being written to: the newest manifest, V, is taken first; the blocks that it
// lists are immutable and are copied, meta.json last; only then V itself is put. A block that leaves the source meanwhile
// is in no newer manifest any more, and the tenant begins again with that one.
package bucketcopy
