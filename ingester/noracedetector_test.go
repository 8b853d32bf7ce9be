//go:build !race

package ingester

// raceDetector tells tests that measure.
const raceDetector = false

// rounds is how often a test of random damage repeats itself.
func rounds(all, _ int) int { return all }
