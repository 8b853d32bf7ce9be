//go:build race

package oracle

// defaultSeeds is small: the race detector makes each seed ten times as long, and the others run without it.
const defaultSeeds = 6

// stride is between the operations that fail.
const stride = 29
