package salvage

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
)

func newReader(b []byte) io.Reader { return bytes.NewReader(b) }

// flips is how many bytes of each file are flipped in the short form; SALVAGE_ALL=1 flips all of them.
const flips = 5

// seeds is how many random blocks there are; SALVAGE_SEEDS says another number.
func seeds() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("SALVAGE_SEEDS"), 10, 64); err == nil {
		return n
	}
	if raceDetector {
		return 1
	}
	return 4
}

// TestOneByte flips single bytes. Of a chunk file that costs one chunk at most, of any other file nothing.
func TestOneByte(t *testing.T) {
	for seed := range seeds() {
		w := newWorld(t, seed)
		r := rand.New(rand.NewPCG(seed, 7))
		for _, f := range w.block.Files {
			for _, at := range positions(r, len(f.Data)) {
				data := slices.Clone(f.Data)
				data[at] ^= byte(1 + r.IntN(255))
				w.with(t, map[string][]byte{f.Name: data})
				c, report := w.read(t)
				lost := w.judge(t, c, report)
				most := uint64(0)
				if _, ok := block.ParseSegmentName(f.Name); ok {
					most = 1
				}
				require.LessOrEqual(t, lost, most, "seed %d, byte %d of %d of %s: %+v", seed, at, len(f.Data), f.Name, report)
			}
			w.with(t, map[string][]byte{f.Name: f.Data})
		}
	}
}

func positions(r *rand.Rand, n int) (at []int) {
	if os.Getenv("SALVAGE_ALL") != "" || n <= flips {
		for i := range n {
			at = append(at, i)
		}
		return at
	}
	for range flips {
		at = append(at, r.IntN(n))
	}
	return at
}
