// Package localstore owns how the parts that read blocks from a bucket are put together: budgets, disk cache, the maker of
// sidecars, the local source, and a reader over it. It refuses to do any of their work. Read package reader next.
package localstore

import (
	"errors"
	"flag"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/budget"
	"github.com/duramendb/duramen/chunkstore/cache"
	"github.com/duramendb/duramen/chunkstore/reader"
	"github.com/duramendb/duramen/chunkstore/sidecar"
)

// Config holds what an operator may set.
type Config struct {
	DiskCache cache.DiskConfig `yaml:"disk_cache"`
	Memory    budget.Config    `yaml:"memory"`
}

// RegisterFlags adds the settings to f with their defaults.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	c.DiskCache.RegisterFlags(f)
	c.Memory.RegisterFlags(f)
}

// Validate says which settings are wrong and what would be right.
func (c *Config) Validate() error { return errors.Join(c.DiskCache.Validate(), c.Memory.Validate()) }

// Store reads the blocks of one bucket. It is safe for concurrent use.
type Store struct {
	// Source gives the series of blocks, Reader merges them.
	Source reader.Source
	Reader *reader.Reader

	close []func() error
}

// Open puts a Store over bkt together. dir is a folder of its own on a local disk: of sidecars that are being built, and
// of the disk cache when the settings name no other. notes may be nil. Nothing is read from the bucket yet; the sessions of
// the source are closed before the Store is.
func Open(
	cfg Config, dir string, bkt bucket.Bucket, notes sidecar.Notes, limits reader.Limits, now func() time.Time,
	log *slog.Logger, reg prometheus.Registerer,
) (_ *Store, err error) {
	s := &Store{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	budgets := cfg.Memory.Budgets()
	log.Info("memory budgets", "limit", budgets.Limit, "source", budgets.Source, "directories", budgets.Directories,
		"pages", budgets.Pages, "chunks", budgets.Pool.Bytes, "chunks_per_query", budgets.Pool.QueryBytes)
	var disk *cache.Disk
	if cfg.DiskCache.MaxBytes != 0 {
		if cfg.DiskCache.Dir == "" {
			cfg.DiskCache.Dir = filepath.Join(dir, "cache")
		}
		if disk, err = cache.OpenDisk(cfg.DiskCache, log, reg); err != nil {
			return nil, err
		}
		s.close = append(s.close, disk.Close)
	}
	maker := sidecar.New(sidecar.Config{Dir: filepath.Join(dir, "sidecars")}, bkt, notes, now, log, reg)
	s.close = append(s.close, maker.Close)
	rcfg := reader.Config{DirectoryCacheBytes: budgets.Directories, PageCacheBytes: budgets.Pages}
	local, err := reader.NewLocal(rcfg, maker.Bucket(), maker, disk, budget.NewPool(budgets.Pool, reg), limits, log, reg)
	if err != nil {
		return nil, err
	}
	s.close = append(s.close, local.Close)
	s.Source = local
	s.Reader, err = reader.New(rcfg, local, log, reg)
	return s, err
}

// Close waits for sidecars that are being built and frees what is held. What is cached on disk stays.
func (s *Store) Close() error {
	var errs []error
	for _, fn := range slices.Backward(s.close) {
		errs = append(errs, fn())
	}
	s.close = nil
	return errors.Join(errs...)
}
