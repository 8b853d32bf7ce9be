package blockcheck

import (
	"encoding/binary"
)

// scanXOR reads a chunk of floats to its end as its decoder does, and makes of each sample its time only: any bits are a
// value. It takes a third of the decoder's time. ok is false for all that is out of the ordinary, about which the decoder
// has to be asked. BenchmarkDecode measures it.
func scanXOR(data []byte) (found samples, ok bool) {
	if len(data) < 2 {
		return found, false
	}
	total := int(binary.BigEndian.Uint16(data))
	b := bits{data: data[2:]}
	t, n := binary.Varint(b.data)
	if n <= 0 || total == 0 {
		return found, false
	}
	b.at = 8*n + 64 // the first value is whole
	found.mint = t
	delta, value := uint64(0), uint(64) // value is how many bits the last one took
	for i := 1; i < total; i++ {
		before := t
		if i == 1 {
			if b.at/8 > len(b.data) {
				return found, false
			}
			if delta, n = binary.Uvarint(b.data[b.at/8:]); n <= 0 {
				return found, false
			}
			b.at += 8 * n
		} else if w := b.peek(); w>>63 == 0 {
			b.at++
		} else {
			delta += b.deltaOfDelta(w)
		}
		t += int64(delta) //nolint:gosec // wraps as the decoder's does
		found.unordered = found.unordered || t <= before
		switch w := b.peek(); {
		case w>>63 == 0: // as the one before
			b.at++
		case w>>62 == 0b10: // in the same bits as the one before
			b.at += 2 + int(value) //nolint:gosec // at most 64
		default: // two bits, five of leading zeros, six of how many follow
			if value = uint(w >> 51 & 63); value == 0 {
				value = 64
			}
			b.at += 13 + int(value) //nolint:gosec // at most 64
		}
	}
	if b.at > 8*len(b.data) {
		return found, false
	}
	found.maxt, found.floats = t, uint64(total) //nolint:gosec // 16 bits
	return found, !found.unordered
}

// bits is a stream of bits, the highest of a byte first.
type bits struct {
	data []byte
	at   int
}

// peek returns at least the next 57 bits, at the upper end. Behind the end of the data there are zeros.
func (b *bits) peek() uint64 {
	i := b.at / 8
	if i+8 <= len(b.data) {
		return binary.BigEndian.Uint64(b.data[i:]) << (b.at % 8)
	}
	var tail [8]byte
	if i < len(b.data) {
		copy(tail[:], b.data[i:])
	}
	return binary.BigEndian.Uint64(tail[:]) << (b.at % 8)
}

// deltaOfDelta reads how the distance to the sample before differs from the one before that. w is what peek returned, and
// begins with a one.
func (b *bits) deltaOfDelta(w uint64) uint64 {
	prefix, size := 4, 64
	switch {
	case w>>62 == 0b10:
		prefix, size = 2, 14
	case w>>61 == 0b110:
		prefix, size = 3, 17
	case w>>60 == 0b1110:
		prefix, size = 4, 20
	}
	if size == 64 {
		b.at += prefix
		upper := b.peek() >> 32
		b.at += 32
		lower := b.peek() >> 32
		b.at += 32
		return upper<<32 | lower
	}
	b.at += prefix + size
	v := w << prefix >> (64 - size)
	if v > 1<<(size-1) {
		v -= 1 << size
	}
	return v
}
