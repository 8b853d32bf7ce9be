package salvage

import (
	"encoding/binary"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

// DefaultMaxMemoryBytes is room for some ten million symbols and fifty million chunks.
const DefaultMaxMemoryBytes = 2 << 30

// What is held in memory of a block while it is salvaged, in bytes: of each symbol where it lies and, once a series has it, the
// string in a map; of each list of postings where it lies; of each chunk where it begins and ends, in slices that grow; of each
// series where it lies, in a map.
const (
	symbolBytes = 100
	listBytes   = 64
	chunkBytes  = 16
	seriesBytes = 48
)

// ErrTooLarge means that a salvage would take more memory than Config.MaxMemoryBytes. It is of kind Unprocessable. The block
// stays as it is; salvage it where there is more memory.
var ErrTooLarge = errkind.New(errkind.Unprocessable, "the block is too large to be salvaged")

// needed returns how much memory a salvage takes, roughly. Counts in the index are believed as far as they can be true.
func (x *indexFile) needed(b *manifest.Block) int64 {
	count := func(at, until, least int64) int64 {
		if at <= 0 || at+2*lengthBytes > until || until > int64(len(x.b)) {
			return 0
		}
		return min(int64(binary.BigEndian.Uint32(x.b[at+lengthBytes:])), (until-at)/least)
	}
	size := int64(len(x.b))
	symbols, lists := count(x.symbolsAt, min(x.seriesAt, size), 2), count(x.table, size, 5)
	return symbols*symbolBytes + max(0, min(x.seriesAt, size)-x.symbolsAt) + lists*listBytes +
		int64(b.Chunks)*chunkBytes + int64(b.Series)*seriesBytes //nolint:gosec // far below
}

// fits returns an ErrTooLarge when a block takes more memory than may be.
func (x *indexFile) fits(b *manifest.Block, most int64) error {
	if need := x.needed(b); most > 0 && need > most {
		return errkind.New(errkind.Unprocessable, "%w: it would take %d MiB of memory, and may take %d", ErrTooLarge,
			need>>20, most>>20)
	}
	return nil
}
