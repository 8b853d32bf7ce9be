package reader

import "fmt"

// Config is wiring, not settings: see package localstore for what an operator may set.
type Config struct {
	// DirectoryCacheBytes and PageCacheBytes are the memory for directories of sidecars and for decoded pages.
	DirectoryCacheBytes, PageCacheBytes int64
	// ParallelBlocks is how many blocks one query reads at the same time; 0 means 64, two months of daily blocks.
	ParallelBlocks int
}

const defaultParallelBlocks = 64

func (c *Config) check() error {
	if c.ParallelBlocks == 0 {
		c.ParallelBlocks = defaultParallelBlocks
	}
	if c.ParallelBlocks < 0 || c.DirectoryCacheBytes < 0 || c.PageCacheBytes < 0 {
		return fmt.Errorf("nothing of %+v can be negative", *c)
	}
	return nil
}
