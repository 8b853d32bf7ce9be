//go:build !race

package ingester

// raceDetector tells tests that measure.
const raceDetector = false
