// Package compaction holds the commands that tell what the compactor does for a tenant, and why: its plan, and how far the
// tenant's blocks are. They read the manifest in a bucket, where all of that follows from, change nothing, and need no
// server. Read package compactor/plan next for the rules.
package compaction

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"time"

	"github.com/duramendb/duramen/chunkstore/bucket/backend"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/cmd/duramenctl/store"
	"github.com/duramendb/duramen/compactor/plan"
	"github.com/duramendb/duramen/internal/cli"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// settings are the flags that the commands have in common.
type settings struct {
	bucket  store.Flags
	url     string // of plan alone
	access  cli.Access
	format  string
	at      string
	shipped string
	limits  plan.Limits
}

func (s *settings) registerFlags(f *flag.FlagSet) {
	s.bucket.RegisterFlags(f)
	f.StringVar(&s.format, "format", "table", "table or json.")
	f.StringVar(&s.at, "at", "now", "Plan for this time, such as +3h: what will there be to do if no block comes?")
	f.StringVar(&s.shipped, "shipped-up-to", "", "Up to when all ingesters have shipped, as the ring page says. Without it a slot counts as complete\n"+
		"two hours after its end.")
	f.DurationVar(&s.limits.OutOfOrderWindow, "out-of-order-window", 3*time.Hour, "The server's out-of-order window.")
	f.DurationVar(&s.limits.Retention, "retention", 0, "The tenant's retention; 0 is for ever.")
	f.IntVar(&s.limits.Replicas, "replicas", 1, "How many ingesters hold each series, for the prediction of sizes.")
	f.Int64Var(&s.limits.MaxIndexBytes, "max-index-bytes", plan.DefaultMaxIndexBytes, "The largest index that the compactor builds.")
	f.DurationVar(&s.limits.DeletionDelay, "deletion-delay", plan.DefaultDeletionDelay, "How long a deletion waits before blocks are rewritten for it.")
}

// arguments validates the flags and returns the tenant that the arguments name, and the time.
func (s *settings) arguments(args []string, now time.Time) (tenantID string, at time.Time, err error) {
	if s.format != "table" && s.format != "json" {
		return "", at, cli.Usagef("-format: %q is neither table nor json", s.format)
	}
	if len(args) != 1 {
		return "", at, cli.Usagef("give one tenant")
	}
	if err := tenant.ValidateID(args[0]); err != nil {
		return "", at, cli.Usagef("%w", err)
	}
	if at, err = cli.Instant(s.at, now); err != nil {
		return "", at, cli.Usagef("-at: %w", err)
	}
	s.limits.ShippedUpTo = plan.ShippedUnknown
	if s.shipped != "" {
		shipped, err := cli.Instant(s.shipped, now)
		if err != nil {
			return "", at, cli.Usagef("-shipped-up-to: %w", err)
		}
		s.limits.ShippedUpTo = shipped.UnixMilli()
	}
	return args[0], at, nil
}

// place is an opened bucket with the manifest of one tenant.
type place struct {
	bkt      *backend.Store
	manifest *manifest.Manifest
	env      cli.Env
}

// with opens the bucket, reads the manifest, runs do and closes the bucket.
func (s *settings) with(ctx context.Context, env cli.Env, tenantID string, do func(p *place) error) (err error) {
	bkt, err := s.bucket.Open(env)
	if err != nil {
		return err
	}
	defer store.Close(bkt, &err)
	m, err := manifest.NewOwner(bkt, time.Now, slog.New(slog.DiscardHandler), nil).Refresh(ctx, tenantID)
	switch {
	case errkind.Of(err) == errkind.Corrupt:
		return cli.Wrong(err)
	case err != nil:
		return err
	case m.Version == 0:
		return errors.New("tenant " + tenantID + " has no manifest in " + bkt.Name())
	}
	return do(&place{bkt, m, env})
}
