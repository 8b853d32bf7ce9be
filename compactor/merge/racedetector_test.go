//go:build race

package merge

// raceDetector makes tests of many rounds shorter: nearly all of a merge is one goroutine.
const raceDetector = true
