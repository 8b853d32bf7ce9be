//go:build !race

package replicate

// defaultSeeds is how many worlds TestSchedules runs.
const defaultSeeds = 300
