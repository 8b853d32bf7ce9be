//go:build race

package replicate

const raceEnabled = true

// junk makes memory that is given back unusable, so that a late reader fails loudly.
func junk(b []byte) {
	b = b[:cap(b)]
	for i := range b {
		b[i] = 0xdb
	}
}
