package reader

import (
	"context"
	"errors"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// ErrGone means that an object of a planned block is not in the bucket. Its kind is Unavailable: the block may have left
// the manifest since the query was planned, so plan again on a fresh manifest, once, and give up loudly if it is still
// there.
var ErrGone = errors.New("object of a planned block is gone")

// Source gives the series of blocks, each block for itself: merging is the caller's.
type Source interface {
	// Session returns one query's use of exactly these blocks of a tenant, for samples with mint ≤ t ≤ maxt in
	// milliseconds since the Unix epoch. Nothing is read yet; the session must be closed.
	Session(tenant string, blocks []manifest.Block, mint, maxt int64) Session
}

// Session is one query's use of some blocks. It is for one goroutine and closed once; what its methods return is for that
// goroutine, too.
//
// Errors name the tenant, and the block and object where there is one. An object that is not there wraps ErrGone. What is
// damaged after one more read past the caches is of kind Corrupt, a query over a limit of kind Unprocessable with the
// limit, its value and the number, one that got no memory in time of kind Limited, and a failing bucket of kind
// Unavailable. An answer is whole or an error.
type Session interface {
	// Select returns for each block of the session, in their order, its matching series in label order with the chunks
	// that overlap [mint, maxt]. External labels of a block are added to its series. hints may be nil.
	//
	// Chunks are fetched as iterators advance, in the order of the series with windows of bounded size; reading in
	// another order is right and slow. ctx bounds that reading, too. Series stay valid until Close; chunk bytes and
	// labels for ever: they are copies. The iterators' errors are the session's.
	Select(ctx context.Context, hints *storage.SelectHints, matchers ...*labels.Matcher) ([]storage.ChunkSeriesSet, error)

	// LabelValues returns the distinct values of a label in order, of all series when there are no matchers; at most as
	// many as the hints allow.
	LabelValues(
		ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher,
	) ([]string, error)

	// LabelNames returns the distinct names of labels in order, as LabelValues does values.
	LabelNames(ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, error)

	// Close gives memory back and waits for all reads that the session began.
	Close() error
}

// SidecarInfo is what the manifest keeps of a block's sidecar.
type SidecarInfo struct {
	// SidecarBytes is the size of the object, DirectoryBytes that of the directory at its end.
	SidecarBytes, DirectoryBytes int64
}

// Sidecars sees to it that a block has a sidecar.
type Sidecars interface {
	// Ensure builds the sidecar of a block that has none which can be read, and uploads it. It is called when the manifest
	// knows no size of it, or it is missing, damaged or of another format; it returns the sizes of what is there then.
	// A block whose own objects are not there wraps ErrGone or bucket.ErrNotFound.
	Ensure(ctx context.Context, tenant string, b manifest.Block) (SidecarInfo, error)
}

// Limits says what a query of a tenant may read. Zero means no limit.
type Limits interface {
	// MaxFetchedSeriesPerQuery counts distinct series. A Source counts those of each block, which is a lower bound; who
	// merges the blocks counts the rest.
	MaxFetchedSeriesPerQuery(tenant string) int
	// MaxFetchedChunkBytesPerQuery is in bytes as they lie in the blocks.
	MaxFetchedChunkBytesPerQuery(tenant string) int64
}
