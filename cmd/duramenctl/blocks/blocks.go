// Package blocks is the group of commands about the blocks of a bucket. Those that are here look at what there is, and
// whether it is sound, and change nothing; package backfill brings blocks in. Read package chunkstore/blockcheck next for
// what a check looks at.
package blocks

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/bucket/backend"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/cmd/duramenctl/backfill"
	"github.com/duramendb/duramen/cmd/duramenctl/store"
	"github.com/duramendb/duramen/internal/cli"
	"github.com/duramendb/duramen/tenant"
)

// Command returns the group.
func Command() cli.Command {
	return cli.Command{
		Name: "blocks", Summary: "list, check and upload the blocks of a bucket",
		Example:  "duramenctl blocks list -bucket=./data/bucket\nduramenctl blocks check -bucket=./data/bucket team-a",
		Commands: []cli.Command{listCommand(), checkCommand(), backfill.Command()},
	}
}

// settings are the flags that both commands have.
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
}

func (s *settings) open(env cli.Env) (*place, error) {
	bkt, err := s.bucket.Open(env)
	if err != nil {
		return nil, err
	}
	return &place{bkt, manifest.NewOwner(bkt, time.Now, slog.New(slog.DiscardHandler), nil)}, nil
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

// arguments reads "[TENANT [ULID…]]".
func arguments(args []string) (tenantID string, ids []ulid.ULID, err error) {
	if len(args) == 0 {
		return "", nil, nil
	}
	if err := tenant.ValidateID(args[0]); err != nil {
		return "", nil, cli.Usagef("%w", err)
	}
	for _, text := range args[1:] {
		id, err := ulid.ParseStrict(text)
		if err != nil {
			return "", nil, cli.Usagef("%q is no ULID: %w", text, err)
		}
		ids = append(ids, id)
	}
	return args[0], ids, nil
}

// date writes a time in milliseconds.
func date(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05") }

// join makes one error of what is wrong, marked as such.
func join(wrong []error) error { return cli.Wrong(errors.Join(wrong...)) }
