package app

import (
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/duramendb/duramen/chunkstore/bucket/backend"
	"github.com/duramendb/duramen/chunkstore/localstore"
	"github.com/duramendb/duramen/chunkstore/manifest/reconcile"
	"github.com/duramendb/duramen/compactor"
	"github.com/duramendb/duramen/distributor"
	"github.com/duramendb/duramen/distributor/replicate"
	"github.com/duramendb/duramen/ingester"
	"github.com/duramendb/duramen/ingester/ingestrpc"
	"github.com/duramendb/duramen/internal/peerconn"
	"github.com/duramendb/duramen/internal/tracing"
	"github.com/duramendb/duramen/ring/gossip"
	"github.com/duramendb/duramen/tenant"
)

// Config is the tree of all settings. A setting's YAML path and its flag follow from one another:
// server.http_listen_address is -server.http-listen-address. Each package owns its section; what no package owns is in
// sections.go.
type Config struct {
	Target  string `yaml:"target"`
	DataDir string `yaml:"data_dir"`

	Server         ServerConfig           `yaml:"server"`
	Tenancy        TenancyConfig          `yaml:"tenancy"`
	Limits         tenant.LimitsConfig    `yaml:"limits"`
	Distributor    distributor.Config     `yaml:"distributor"`
	Ingester       ingester.Config        `yaml:"ingester"`
	Querier        QuerierConfig          `yaml:"querier"`
	Chunkstore     localstore.Config      `yaml:"chunkstore"`
	Bucket         backend.Config         `yaml:"bucket"`
	Manifest       reconcile.Config       `yaml:"manifest"`
	Compactor      compactor.Config       `yaml:"compactor"`
	Ring           RingConfig             `yaml:"ring"`
	GRPCClient     peerconn.Config        `yaml:"grpc_client"`
	IngesterClient ingestrpc.ClientConfig `yaml:"ingester_client"`
	IngesterServer ingestrpc.ServerConfig `yaml:"ingester_server"`
	Replicate      replicate.Config       `yaml:"replicate"`
	Memberlist     gossip.Config          `yaml:"memberlist"`
	Tracing        tracing.Config         `yaml:"tracing"`
	Log            LogConfig              `yaml:"log"`
}

// RegisterFlags registers a flag for each setting and sets c to the defaults.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	f.StringVar(&c.Target, "target", roleAll,
		"The roles that this process plays, separated by commas: distributor, ingester, querier, store-gateway and compactor; "+
			"\"all\" is every one of them, \"write\" distributor and ingester, \"read\" querier and store-gateway, \"backend\" "+
			"store-gateway and compactor. A process that does not play all is a member of a cluster (memberlist.join).")
	f.StringVar(&c.DataDir, "data-dir", "./data",
		"Directory of everything that is kept on local disk. It is created when missing; one process at a time uses it.")
	c.Server.RegisterFlags(f)
	c.Tenancy.RegisterFlags(f)
	c.Limits.RegisterFlags(f)
	c.Distributor.RegisterFlags(f)
	c.Ingester.RegisterFlags(f)
	c.Querier.RegisterFlags(f)
	c.Chunkstore.RegisterFlags(f)
	c.Bucket.RegisterFlags(f)
	c.Manifest.RegisterFlags(f)
	c.Compactor.RegisterFlags(f)
	c.Ring.RegisterFlags(f)
	c.GRPCClient.RegisterFlags(f)
	c.IngesterClient.RegisterFlags(f)
	c.IngesterServer.RegisterFlags(f)
	c.Replicate.RegisterFlags(f)
	c.Memberlist.RegisterFlags(f)
	c.Tracing.RegisterFlags(f)
	c.Log.RegisterFlags(f)
}

// DefaultConfig returns what runs when nobody sets anything.
func DefaultConfig() Config {
	var c Config
	c.RegisterFlags(flag.NewFlagSet("defaults", flag.ContinueOnError))
	return c
}

// Validate returns all faults, joined: the setting's path, its value and what would be right.
func (c *Config) Validate() error {
	return errors.Join(
		c.validateTarget(),
		c.validateDataDir(),
		inSection("server", c.Server.Validate()),
		inSection("limits", c.Limits.Validate()),
		inSection("distributor", c.Distributor.Validate()),
		inSection("ingester", c.Ingester.Validate()),
		inSection("querier", c.Querier.Validate()),
		inSection("chunkstore", c.Chunkstore.Validate()),
		inSection("bucket", c.Bucket.Validate()),
		c.validateSharedBucket(),
		inSection("manifest", c.Manifest.Validate()),
		inSection("compactor", c.Compactor.Validate()),
		inSection("ring", c.Ring.Validate()),
		inSection("grpc_client", c.GRPCClient.Validate()),
		inSection("ingester_client", c.IngesterClient.Validate()),
		inSection("ingester_server", c.IngesterServer.Validate()),
		inSection("replicate", c.Replicate.Validate()),
		inSection("memberlist", c.Memberlist.Validate()),
		inSection("tracing", c.Tracing.Validate()),
		inSection("log", c.Log.Validate()),
	)
}

func (c *Config) validateDataDir() error {
	if c.DataDir == "" {
		return errors.New("data_dir is empty; use a directory on a local disk such as ./data")
	}
	return nil
}

// validateSharedBucket refuses members of a cluster that would each have a bucket of their own.
func (c *Config) validateSharedBucket() error {
	usesBucket := slices.ContainsFunc(c.roles(), func(role string) bool { return role != roleDistributor })
	if c.clustered() && usesBucket && c.Bucket.Backend == backend.Filesystem && c.Bucket.Filesystem.Directory == "" {
		return errors.New("bucket.filesystem.directory is empty, and each member of the cluster would have a bucket below its " +
			"own data directory; name a directory that all of them share, or use bucket.backend \"s3\"")
	}
	return nil
}

// headerRequired reports whether a request has to name its tenant.
func (c *Config) headerRequired() bool { return c.Tenancy.HeaderRequired.or(c.clustered()) }

// bucketDir is where a filesystem bucket lies when the settings do not say.
func (c *Config) bucketDir() string { return filepath.Join(c.DataDir, "bucket") }

// inSection puts the section's name before each of the joined errors of a package that does not say it itself.
func inSection(section string, err error) error {
	var joined interface{ Unwrap() []error }
	switch {
	case err == nil:
		return nil
	case errors.As(err, &joined):
		var errs []error
		for _, e := range joined.Unwrap() {
			errs = append(errs, inSection(section, e))
		}
		return errors.Join(errs...)
	case strings.HasPrefix(err.Error(), section+"."):
		return err
	default:
		return fmt.Errorf("%s.%w", section, err)
	}
}
