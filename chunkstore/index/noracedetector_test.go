//go:build !race

package index

// raceDetector tells tests that measure the heap, or take long.
const raceDetector = false
