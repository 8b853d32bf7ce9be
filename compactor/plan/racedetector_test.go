//go:build race

package plan

// raceDetector tells tests that take long.
const raceDetector = true
