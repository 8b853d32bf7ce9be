//go:build race

package blockcheck

// raceDetector tells the test that goes through all bytes.
const raceDetector = true
