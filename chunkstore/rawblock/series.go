package rawblock

// Chunk is what an index says of one chunk.
type Chunk struct {
	// Segment is counted from 1, as the files are; the record begins at Offset in it.
	Segment int
	Offset  int64
	// MinTime and MaxTime bound the samples, both inclusive, in milliseconds.
	MinTime, MaxTime int64
}

// Chunks reads the list of chunks of one series, which follows its labels, behind what dst holds. ok is false when it
// cannot be decoded.
func (c *Cursor) Chunks(dst []Chunk) (_ []Chunk, ok bool) {
	var maxt int64
	var ref uint64
	for i := range c.Uvarint() {
		var m Chunk
		if i == 0 {
			m.MinTime = c.Varint()
			m.MaxTime = m.MinTime + int64(c.Uvarint()) //nolint:gosec // wraps as the writer's did
			ref = c.Uvarint()
		} else {
			m.MinTime = maxt + int64(c.Uvarint())      //nolint:gosec // as above
			m.MaxTime = m.MinTime + int64(c.Uvarint()) //nolint:gosec // as above
			ref += uint64(c.Varint())                  //nolint:gosec // as above
		}
		if c.Err != nil {
			return dst, false
		}
		maxt = m.MaxTime
		m.Segment, m.Offset = int(ref>>32)+1, int64(ref&0xffff_ffff) //nolint:gosec // 32 bits each
		dst = append(dst, m)
	}
	return dst, c.Err == nil
}
