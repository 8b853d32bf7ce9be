package distributor

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/distributor/rw1"
	"github.com/duramendb/duramen/distributor/rw2"
	"github.com/duramendb/duramen/distributor/wire"
)

func TestKeysOfReferencesDependOnEverySymbolItsPlaceAndTheirNumber(t *testing.T) {
	h := newHasher()
	rnd := rand.New(rand.NewPCG(1, 2))
	symbols := make([]key, 300)
	for i := range symbols {
		symbols[i] = key{rnd.Uint64(), rnd.Uint64()}
	}
	for _, n := range []int{0, 1, 2, 24, maxRefs - 1, maxRefs, maxRefs + 1, 2 * maxRefs, 5 * maxRefs} {
		refs := make([]uint32, n)
		for i := range refs {
			refs[i] = rnd.Uint32N(uint32(len(symbols)))
		}
		k := h.refKey(refs, symbols)
		require.NotZero(t, k)
		require.Equal(t, k, h.refKey(append([]uint32(nil), refs...), symbols))
		require.NotEqual(t, k, h.refKey(append(refs, 0), symbols), "%d", n)
		require.NotEqual(t, k, newHasher().refKey(append(refs, 0), symbols), "seeds are random")
		for i := range refs {
			changed := append([]uint32(nil), refs...)
			changed[i] = (changed[i] + 1) % uint32(len(symbols))
			require.NotEqual(t, k, h.refKey(changed, symbols), "symbol %d of %d", i, n)
			if j := rnd.IntN(n); refs[i] != refs[j] {
				swapped := append([]uint32(nil), refs...)
				swapped[i], swapped[j] = swapped[j], swapped[i]
				require.NotEqual(t, k, h.refKey(swapped, symbols), "places %d and %d of %d", i, j, n)
			}
			changed[i] = uint32(len(symbols))
			require.Zero(t, h.refKey(changed, symbols), "a reference outside the table")
		}
	}
}

func TestKeysOfTheFormatsAreNotConfusable(t *testing.T) {
	d, _ := newTest(t, pusherFunc(acceptAll), openLimits())
	var one, two wire.Request
	w := scrape(1, 0)
	one.Reset(marshal1(t, w), 1<<20, nil)
	require.NoError(t, rw1.Decode(&one))
	two.Reset(marshal2(t, toFormat2(w)), 1<<20, nil)
	require.NoError(t, rw2.Decode(&two))
	k1 := d.hasher.labelKeys(nil, &one)[0]
	k2 := d.hasher.refKeys(nil, &two, d.hasher.symbolHashes(nil, &two))[0]
	require.NotEqual(t, k1, k2)

	// A body of 1.0 whose label bytes are what is hashed in 2.0 gets another key, too.
	raw := wire.Request{Buf: []byte("job"), Labels: []wire.Span{{From: 0, To: 3}}, Symbols: []wire.Span{{
		From: 0,
		To:   3,
	}}}
	require.NotEqual(t, d.hasher.labelKeys(nil, &raw)[0], d.hasher.symbolHashes(nil, &raw)[0])
}
