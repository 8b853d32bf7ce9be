//go:build !race

package replicate

const raceEnabled = false

// junk makes memory that is given back unusable in builds with the race detector, and does nothing in others.
func junk([]byte) {}
