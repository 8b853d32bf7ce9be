//go:build !race

package distributor

const raceEnabled = false

func junk([]byte) {}
