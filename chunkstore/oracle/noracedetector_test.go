//go:build !race

package oracle

const defaultSeeds = 300
