// Package blockgen owns the making of Prometheus TSDB blocks from nothing: large ones whose samples follow a formula, at
// tens of millions of samples a second, and small random ones that hold whatever a block may hold. It refuses to take
// samples from anybody and to be used outside tests and benchmarks: the bytes of a block lie in memory. Start reading at
// build.go; grid.go has the large blocks, random.go the small ones.
package blockgen
