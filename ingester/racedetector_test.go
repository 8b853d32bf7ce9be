//go:build race

package ingester

// raceDetector tells tests that measure.
const raceDetector = true

// rounds is how often a test of random damage repeats itself: the race detector makes each round ten times as long, and
// `make thorough` runs all of them without it.
func rounds(_, race int) int { return race }
