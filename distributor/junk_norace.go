//go:build !race

package distributor

func junk([]byte) {}
