//go:build !race

package s3

// raceDetector tells tests that take long.
const raceDetector = false
