package backend

import (
	"errors"
	"flag"
	"fmt"

	"github.com/duramendb/duramen/chunkstore/bucket/rooted"
	"github.com/duramendb/duramen/chunkstore/bucket/s3"
	"github.com/duramendb/duramen/tenant"
)

// The values of Config.Backend.
const (
	Filesystem = "filesystem"
	S3         = "s3"
)

// Config says where blocks are kept for years.
type Config struct {
	Backend      string `yaml:"backend"`
	SingleWriter bool   `yaml:"single_writer"`
	RootTenant   string `yaml:"root_tenant"`
	// AcceptNewIdentity is the identity of the bucket in whose place another one is accepted.
	AcceptNewIdentity string `yaml:"accept_new_identity"`

	Filesystem FilesystemConfig `yaml:"filesystem"`
	S3         s3.Config        `yaml:"s3"`
}

// FilesystemConfig is the bucket on a local disk.
type FilesystemConfig struct {
	Directory string `yaml:"directory"`
}

// RegisterFlags registers the flags and sets the defaults.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	f.StringVar(&c.Backend, "bucket.backend", Filesystem,
		"Kind of object store: \"filesystem\", or \"s3\" for Amazon S3 and servers that speak its protocol.")
	f.BoolVar(&c.SingleWriter, "bucket.single-writer", false,
		"Vouch that never more than one process writes to the bucket. Only then is a store accepted that does not honour "+
			"put-if-absent; with two writers it would lose blocks from the lists of what there is.")
	f.StringVar(&c.RootTenant, "bucket.root-tenant", "",
		"Tenant to whom the blocks at the top of the bucket belong, where Thanos keeps them; new blocks of that tenant go there, "+
			"too. Empty: blocks lie in the folders of tenants, as those of Cortex and Mimir do. Choose before the first start.")
	f.StringVar(&c.AcceptNewIdentity, "bucket.accept-new-identity", "",
		"Identity of the former bucket, as the error of the start names it: in its place another bucket is accepted, or one that "+
			"is empty. Without it a node that has been used does not start on another bucket. What it accepted it keeps to, so that "+
			"the setting may stay and accepts nothing more.")
	f.StringVar(&c.Filesystem.Directory, "bucket.filesystem.directory", "",
		"Directory of the filesystem bucket, on a local disk; empty means bucket below the data directory.")
	c.S3.RegisterFlags(f)
}

// Validate returns all faults, joined. Settings of a store that is not chosen are not looked at.
func (c *Config) Validate() error {
	if err := c.validateRootTenant(); err != nil {
		return errors.Join(err, c.validateBackend())
	}
	return c.validateBackend()
}

func (c *Config) validateRootTenant() error {
	if c.RootTenant == "" {
		return nil
	}
	if err := tenant.ValidateID(c.RootTenant); err != nil {
		return fmt.Errorf("root_tenant: %w", err)
	}
	if rooted.IsBlockFolder(c.RootTenant) {
		return fmt.Errorf("root_tenant %s is a ULID, as the name of a block", c.RootTenant)
	}
	return nil
}

func (c *Config) validateBackend() error {
	switch c.Backend {
	case Filesystem:
		return nil
	case S3:
		return below("s3.", c.S3.Validate())
	default:
		return fmt.Errorf("backend is %q; use %q or %q", c.Backend, Filesystem, S3)
	}
}

// below puts where the settings stand before each of the joined errors.
func below(path string, err error) error {
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return err
	}
	var errs []error
	for _, e := range joined.Unwrap() {
		errs = append(errs, fmt.Errorf("%s%w", path, e))
	}
	return errors.Join(errs...)
}
