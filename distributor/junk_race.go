//go:build race

package distributor

const raceEnabled = true

// junk overwrites a buffer that goes back to the pool, so that whoever still reads it fails loudly.
func junk(b []byte) {
	b = b[:cap(b)]
	for i := range b {
		b[i] = 0xDB
	}
}
