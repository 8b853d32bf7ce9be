//go:build race

package index

// raceDetector tells the test that measures the heap.
const raceDetector = true
