package duramenpb

import (
	"errors"

	"github.com/prometheus/prometheus/storage"
)

// ErrAway says that an ingester did not answer: its address refuses connections, the connection broke, the answer ended
// in its middle, or nothing came for too long. Its kind is Unavailable. Whoever asks several may go on without that one
// as far as replication allows. An error without it is the ingester's own answer.
var ErrAway = errors.New("ingester is away")

// View is what a query pinned before it reads recent data: the long-term store answers t < Cut from manifest Version,
// so the ingester owes everything with t ≥ Cut and, at any t, what Version does not list.
type View struct {
	// Version is the pinned manifest version; 0 means that none could be had, and the ingester owes everything.
	Version uint64
	// Cut is in milliseconds since the Unix epoch.
	Cut int64
}

// Held is what an ingester says beside its answer, so that the query knows whether its View still fits.
type Held struct {
	// Floor: the ingester still holds everything that it accepted with t ≥ Floor (milliseconds since the Unix epoch).
	Floor int64
	// DeletedVersion is the highest manifest version that lists a block which the ingester has deleted locally.
	DeletedVersion uint64
	// Departures is said by who asks several ingesters: how many of them have left for good, as far as it knows. What those
	// held is in the bucket, and a manifest that was looked at before the last of them was known to have left need not list
	// it. It is 0 in what one ingester says.
	Departures uint64
}

// Fits reports whether an answer given with h completes view for a query that begins at mint. When it does not, the
// query has to plan again on a fresh manifest with a higher cut.
func (h Held) Fits(view View, mint int64) bool {
	if mint >= view.Cut {
		return h.Floor <= mint
	}
	return h.Floor <= view.Cut && h.DeletedVersion <= view.Version
}

// Selection is an ingester's answer to a Select.
//
// One goroutine reads Series and calls Close, which may be called again; the end of the context that the Select was
// given interrupts a reader from elsewhere. Series are valid until Close.
type Selection struct {
	// Held was read when the ingester's querier was open, so it speaks of all that Series gives.
	Held Held
	// Series are in the order of labels, each once. Its chunks are in order of time, do not overlap, and may hold samples
	// outside of the times that were asked for. Err is nil only when everything has come.
	Series storage.ChunkSeriesSet
	Close  func()
}

// UserStats says how much a tenant writes.
type UserStats struct {
	// Series are those in memory.
	Series uint64
	// SamplesPerSecond is over the last whole minute.
	SamplesPerSecond float64
}
