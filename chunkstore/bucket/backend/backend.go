// Package backend owns the choice of the object store: which kind, with which settings, and whether only one process
// writes to it. It refuses to know what the store is used for, and asks it nothing before the first operation. Read
// package bucket next for what a store promises, and package s3 for the one that most people run.
package backend

import (
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/rooted"
	"github.com/duramendb/duramen/chunkstore/bucket/s3"
)

// Store is the object store that the settings name. Its operations are counted, timed and traced, and it takes no PutIfAbsent
// before a probe has shown that it honours the condition.
type Store struct {
	*bucket.Gate

	check func() error
	close func() error
}

// New opens the store. A filesystem's directory is created when it is missing, and is defaultDir when cfg names none; an
// S3 server is not asked anything, and need not be there yet.
func New(cfg Config, defaultDir string, log *slog.Logger, reg prometheus.Registerer) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	if cfg.Backend == S3 {
		b, err := s3.New(cfg.S3, log, reg)
		if err != nil {
			return nil, err
		}
		nothing := func() error { return nil } // whether the server is there, an operation finds out
		return newStore(cfg, b, nothing, b.Close, log, reg), nil
	}
	if cfg.S3.BucketName != "" {
		log.Warn("the S3 settings have no effect: the backend is another",
			"backend", cfg.Backend, "s3_bucket_name", cfg.S3.BucketName)
	}
	dir := cfg.Filesystem.Directory
	if dir == "" {
		dir = defaultDir
	}
	b, err := bucket.NewFilesystem(dir)
	if err != nil {
		return nil, err
	}
	return newStore(cfg, b, b.Check, b.Close, log, reg), nil
}

func newStore(
	cfg Config, b bucket.Bucket, check, closeIt func() error, log *slog.Logger, reg prometheus.Registerer,
) *Store {
	if cfg.RootTenant != "" {
		b = rooted.New(b, cfg.RootTenant) // innermost: everything else knows keys of tenants
	}
	gate := bucket.NewGate(bucket.Traced(bucket.Instrument(b, reg)), cfg.SingleWriter, log)
	return &Store{Gate: gate, check: check, close: closeIt}
}

// Check says whether what the store rests on in this process is still there, such as the directory that it holds open.
// It asks no server.
func (s *Store) Check() error { return s.check() }

// Close releases what the store holds. Calls that are still running may fail, and what they wrote has an unknown outcome.
func (s *Store) Close() error { return s.close() }
