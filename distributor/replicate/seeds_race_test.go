//go:build race

package replicate

// defaultSeeds is small because the race detector makes a world thirty times as dear; `make unit` runs all of them
// without it.
const defaultSeeds = 30
