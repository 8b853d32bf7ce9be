//go:build race

package oracle

// defaultSeeds is less with the race detector, which makes the comparing of bytes ten times slower. All 300 run without.
const defaultSeeds = 40
