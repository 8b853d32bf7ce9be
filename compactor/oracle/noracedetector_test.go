//go:build !race

package oracle

const defaultSeeds = 300

// stride is between the operations that fail.
const stride = 1
