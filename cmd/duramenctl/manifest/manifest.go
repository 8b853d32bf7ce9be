// Package manifest is the group of commands that look into manifests: what a version lists, what changed between two, how
// the newest one compares with the objects in the bucket, and how to make one anew. It reads versions by themselves and never
// takes a damaged one for another. Read package chunkstore/manifest next for what a manifest promises.
package manifest

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/duramendb/duramen/chunkstore/bucket/backend"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/cmd/duramenctl/store"
	"github.com/duramendb/duramen/internal/cli"
	"github.com/duramendb/duramen/tenant"
)

// Command returns the group.
func Command() cli.Command {
	return cli.Command{
		Name: "manifest", Summary: "show, compare and rebuild the manifests in a bucket",
		Example:  "duramenctl manifest show -bucket=./data/bucket team-a\nduramenctl manifest diff -bucket=./data/bucket team-a 7 9",
		Commands: []cli.Command{showCommand(), diffCommand(), rebuildCommand()},
	}
}

// settings are the flags that all commands of the group have.
type settings struct {
	bucket store.Flags
	format string
}

func (s *settings) registerFlags(f *flag.FlagSet) {
	s.bucket.RegisterFlags(f)
	f.StringVar(&s.format, "format", "table", "table or json.")
}

func (s *settings) validate() error {
	if s.format != "table" && s.format != "json" {
		return cli.Usagef("-format: %q is neither table nor json", s.format)
	}
	return nil
}

// place is an opened bucket with its manifests.
type place struct {
	bkt       *backend.Store
	manifests *manifest.Owner
	env       cli.Env
	format    string
}

// with opens the bucket, runs do and closes the bucket.
func (s *settings) with(env cli.Env, do func(p *place) error) (err error) {
	if err := s.validate(); err != nil {
		return err
	}
	bkt, err := s.bucket.Open(env)
	if err != nil {
		return err
	}
	defer store.Close(bkt, &err)
	owner := manifest.NewOwner(bkt, time.Now, slog.New(slog.DiscardHandler), nil)
	return do(&place{bkt, owner, env, s.format})
}

// tenants returns the one that was named, if it has anything in the bucket, or all.
func (p *place) tenants(ctx context.Context, named string) ([]string, error) {
	all, err := p.manifests.Tenants(ctx)
	if err != nil || named == "" {
		return all, err
	}
	for _, id := range all {
		if id == named {
			return []string{id}, nil
		}
	}
	return nil, fmt.Errorf("tenant %s has nothing in %s", named, p.bkt.Name())
}

// tenantArgument reads the name of a tenant.
func tenantArgument(arg string) (string, error) {
	if err := tenant.ValidateID(arg); err != nil {
		return "", cli.Usagef("%w", err)
	}
	return arg, nil
}

// versionArgument reads the number of a version.
func versionArgument(arg string) (uint64, error) {
	n, err := strconv.ParseUint(arg, 10, 64)
	if err != nil || n == 0 {
		return 0, cli.Usagef("%q is no version of a manifest: they count from 1", arg)
	}
	return n, nil
}

// date writes a time in milliseconds since the Unix epoch.
func date(ms int64) string { return clock(time.UnixMilli(ms)) }

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }
