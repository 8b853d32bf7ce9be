package reconcile

import (
	"errors"
	"flag"
	"fmt"
	"time"
)

// Config is about manifests and what is kept in step with them.
type Config struct {
	// Owns says whether this process compares a tenant, nil that it compares all. It is asked at the begin of each pass and
	// should be true in one process at a time; in none or in two of them, for a while, does no harm. The app sets it.
	Owns func(tenantID string) bool `yaml:"-"`
	// Stop has this process write nothing more for a tenant whose time of grace is over, and reports whether nothing is being
	// written; until then the tenant is not purged. nil when nothing else writes. The app sets it.
	Stop func(tenantID string) (stopped bool) `yaml:"-"`

	ReconcileInterval     time.Duration `yaml:"reconcile_interval"`
	IdleReconcileInterval time.Duration `yaml:"idle_reconcile_interval"`
	DeleteDelay           time.Duration `yaml:"delete_delay"`
	PeerFiles             bool          `yaml:"peer_files"`
	IdlePeerFilesInterval time.Duration `yaml:"idle_peer_files_interval"`
	TenantDeletionGrace   time.Duration `yaml:"tenant_deletion_grace"`
}

// RegisterFlags registers the flags and sets the defaults.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	f.DurationVar(&c.ReconcileInterval, "manifest.reconcile-interval", 10*time.Minute,
		"How often the folder in the bucket is listed and compared with its manifest of each tenant to which blocks were added "+
			"lately: blocks whose announcement was lost and blocks of Cortex, Mimir and Thanos are taken in, objects that nobody "+
			"needs any more are deleted. 0 means never, for all tenants.")
	f.DurationVar(&c.IdleReconcileInterval, "manifest.idle-reconcile-interval", 24*time.Hour,
		"How often the same is done at least for a tenant to which nothing is added. The pauses grow up to this, a twelfth of "+
			"the time since the last block each. Set it to 0, which means as above, when Cortex, Mimir or Thanos write blocks now "+
			"and then; each listing is a request or more.")
	f.DurationVar(&c.DeleteDelay, "manifest.delete-delay", 2*time.Hour,
		"How long the objects of a block stay after it left the manifest; an hour at least, whatever is set. Raise it above "+
			"the time after which readers of Cortex, Mimir or Thanos on the same bucket look for deletion marks.")
	f.BoolVar(&c.PeerFiles, "manifest.peer-files", true,
		"Keep bucket-index.json.gz current in each tenant's folder, from which Cortex and Mimir learn what blocks there are.")
	f.DurationVar(&c.IdlePeerFilesInterval, "manifest.idle-peer-files-interval", 24*time.Hour,
		"How old bucket-index.json.gz may become of a tenant to which nothing was added for a day; others' is written every 20m. "+
			"Queriers of Cortex and Mimir refuse one that is older than an hour: set it to 0 while they read this bucket, which means as "+
			"for others and costs 72 requests a day for each tenant.")
	f.DurationVar(&c.TenantDeletionGrace, "manifest.tenant-deletion-grace", 24*time.Hour,
		"How long the request to delete a tenant can be taken back. Writes and queries of the tenant are refused meanwhile, and "+
			"everything of it is kept. A change concerns requests from then on, and marks of peers that are found from then on.")
}

// Validate returns all faults.
func (c *Config) Validate() error {
	var errs []error
	if c.ReconcileInterval != 0 && c.ReconcileInterval < time.Second {
		errs = append(errs, fmt.Errorf("reconcile_interval is %v; use at least 1s, such as 10m, or 0 for never", c.ReconcileInterval))
	}
	for name, d := range map[string]time.Duration{
		"idle_reconcile_interval": c.IdleReconcileInterval, "idle_peer_files_interval": c.IdlePeerFilesInterval,
	} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("%s is %v; use a duration such as 24h, or 0 for that of busy tenants", name, d))
		}
	}
	if c.TenantDeletionGrace < 0 {
		errs = append(errs, fmt.Errorf("tenant_deletion_grace is %v; use a duration such as 24h, or 0 for none", c.TenantDeletionGrace))
	}
	if c.DeleteDelay <= 0 {
		errs = append(errs, fmt.Errorf("delete_delay is %v; use a positive duration such as 2h", c.DeleteDelay))
	}
	return errors.Join(errs...)
}
