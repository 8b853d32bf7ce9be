//go:build race

package salvage

// raceDetector tells tests that measure the heap, or take long.
const raceDetector = true
