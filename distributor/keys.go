package distributor

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"

	"github.com/duramendb/duramen/distributor/wire"
)

// hasher computes keys. Its seeds are random per process, so that nobody can prepare a collision, and each pair serves
// one purpose, so that no key of one format is a key of the other.
type hasher struct {
	labels  [2]maphash.Seed // raw label bytes, format 1.0
	symbols [2]maphash.Seed // one symbol, format 2.0
	refs    [2]maphash.Seed // the sequence of symbol hashes of a series, format 2.0
	places  [maxRefs][4]uint64
}

func newHasher() *hasher {
	pair := func() [2]maphash.Seed { return [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()} }
	h := &hasher{labels: pair(), symbols: pair(), refs: pair()}
	for i := range h.places {
		for j := range h.places[i] {
			h.places[i][j] = maphash.Comparable(h.refs[0], [2]int{i, j})
		}
	}
	return h
}

func hash(seeds *[2]maphash.Seed, b []byte) key {
	return key{maphash.Bytes(seeds[0], b), maphash.Bytes(seeds[1], b)}
}

// notEmpty keeps the zero key free, which marks empty slots.
func (k key) notEmpty() key {
	if k == (key{}) {
		k.lo = 1
	}
	return k
}

// labelKeys appends the key of each series of a request of format 1.0. It is hot.
func (h *hasher) labelKeys(dst []key, r *wire.Request) []key {
	for _, s := range r.Labels {
		dst = append(dst, hash(&h.labels, r.Buf[s.From:s.To]).notEmpty())
	}
	return dst
}

// symbolHashes appends the hash of each symbol: each is hashed once a request, however many series use it.
func (h *hasher) symbolHashes(dst []key, r *wire.Request) []key {
	for _, s := range r.Symbols {
		dst = append(dst, hash(&h.symbols, r.Buf[s.From:s.To]))
	}
	return dst
}

// maxRefs is how many references of a series one round of refKeys takes: 32 labels.
const maxRefs = 64

// refKeys appends the key of each series of a request of format 2.0: a keyed hash of the sequence of its symbols'
// hashes, 128 bits each, so that their order and number count. The key of a series whose references lie outside the
// table is zero. It is hot.
//
// The sequence is hashed by two independent sums of products, Σ (hi+k)·(lo+k'), with random keys for each place (the
// NH hash of UMAC, J. Black et al., CRYPTO 1999; two of them collide with a probability of 2^-128), since a sum of
// products needs no multiplication to wait for the one before it: a third of the time of hashing the bytes.
func (h *hasher) refKeys(dst []key, r *wire.Request, symbols []key) []key {
	for _, s := range r.Labels {
		dst = append(dst, h.refKey(r.Refs[s.From:s.To], symbols))
	}
	return dst
}

func (h *hasher) refKey(refs []uint32, symbols []key) key {
	var before key // the key of the rounds before this one
	for {
		n := min(len(refs), maxRefs)
		var ahi, alo, bhi, blo uint64 // the two sums, in registers
		for i, ref := range refs[:n] {
			if uint64(ref) >= uint64(len(symbols)) {
				return key{}
			}
			x, k := symbols[ref], &h.places[i]
			var carry uint64
			hi, lo := bits.Mul64(x.hi+k[0], x.lo+k[1])
			alo, carry = bits.Add64(alo, lo, 0)
			ahi, _ = bits.Add64(ahi, hi, carry)
			hi, lo = bits.Mul64(x.hi+k[2], x.lo+k[3])
			blo, carry = bits.Add64(blo, lo, 0)
			bhi, _ = bits.Add64(bhi, hi, carry)
		}
		s := [...]uint64{ahi, alo, bhi, blo, uint64(len(refs)), before.hi, before.lo}
		var b [len(s) * 8]byte
		for i, v := range s {
			binary.LittleEndian.PutUint64(b[8*i:], v)
		}
		k := hash(&h.refs, b[:]).notEmpty()
		if refs = refs[n:]; len(refs) == 0 {
			return k
		}
		before = k
	}
}

// metadataHash is a short hash of a series' metadata, 0 when there is none or its references are wrong. It only saves
// passing on what was passed on before, so 32 bits do.
func metadataHash(m wire.SeriesMetadata, symbols []key) uint32 {
	if m == (wire.SeriesMetadata{}) || int64(m.Help) >= int64(len(symbols)) || int64(m.Unit) >= int64(len(symbols)) {
		return 0
	}
	const odd = 0x9e3779b97f4a7c15 // 2^64 / golden ratio, the usual multiplier to spread bits
	x := (symbols[m.Help].hi*odd + symbols[m.Unit].lo) * odd
	return uint32((x+uint64(m.Type))*odd>>32) | 1
}
