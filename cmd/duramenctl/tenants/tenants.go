// Package tenants is the command that lists tenants: those that a server holds in memory and on disk, or those whose
// blocks are in a bucket. It asks the server's own list or the manifests, and opens no block. Read package blocks next
// for what one tenant has in the bucket.
package tenants

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/cmd/duramenctl/ask"
	"github.com/duramendb/duramen/cmd/duramenctl/store"
	"github.com/duramendb/duramen/ingester"
	"github.com/duramendb/duramen/internal/cli"
)

// settings are the flags.
type settings struct {
	url    string
	access cli.Access
	bucket store.Flags
	format string
}

// Command returns the command.
func Command() cli.Command {
	var s settings
	return cli.Command{
		Name: "tenants", Args: "[flags]", Summary: "list the tenants of a server or of a bucket",
		Long: `Without -bucket and -config the server is asked: series in memory, samples per second, what is not in the
bucket yet. With one of them the manifests in the bucket are read: blocks, samples, bytes, range of time.

` + store.Help + `

Exit codes: 0 listed; 1 the server or the bucket cannot be asked; 2 wrong usage; 3 listed, and the manifest of a tenant
cannot be read or a tenant of the server is damaged.`,
		Example: `duramenctl tenants
duramenctl tenants -bucket=./data/bucket
AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… \
  duramenctl tenants -bucket='s3://metrics/?endpoint=minio:9000&insecure=true' -format=json`,
		Flags: func(f *flag.FlagSet) {
			f.StringVar(&s.url, "url", cli.DefaultURL, "Where Duramen listens, without a path.")
			s.access.RegisterFlags(f)
			s.bucket.RegisterFlags(f)
			f.StringVar(&s.format, "format", "table", "table or json.")
		},
		Run: func(ctx context.Context, env cli.Env, args []string) error { return run(ctx, env, s, args) },
	}
}

func run(ctx context.Context, env cli.Env, s settings, args []string) error {
	switch {
	case len(args) > 0:
		return cli.Usagef("no arguments are taken")
	case s.format != "table" && s.format != "json":
		return cli.Usagef("-format: %q is neither table nor json", s.format)
	case s.bucket.Given():
		return ofBucket(ctx, env, s)
	default:
		return ofServer(ctx, env, s)
	}
}

// ofServer lists what a server says.
func ofServer(ctx context.Context, env cli.Env, s settings) error {
	server := cli.Server{URL: s.url, Access: s.access}
	if err := server.Validate(); err != nil {
		return err
	}
	client, err := ask.New(server)
	if err != nil {
		return err
	}
	defer client.Close()
	a, err := client.Get(ctx, "/ingester/tenants")
	if err != nil {
		return err
	}
	if a.Status != http.StatusOK {
		return a.Error()
	}
	var answer struct{ Tenants []ingester.TenantStats }
	if err := json.Unmarshal(a.Body, &answer); err != nil || answer.Tenants == nil {
		return errors.Join(errors.New("the answer is no list of tenants: is the -url right?"), err)
	}
	if s.format == "json" {
		_, err = env.Stdout.Write(a.Body)
	} else {
		err = serverTable(answer.Tenants, time.Now()).Write(env.Stdout)
	}
	if err != nil {
		return err
	}
	var wrong []error
	for _, t := range answer.Tenants {
		if t.Damaged {
			wrong = append(wrong, fmt.Errorf("tenant %s: a log or a block was found damaged and set aside; see the server's log", t.Tenant))
		}
	}
	return cli.Wrong(errors.Join(wrong...))
}

func serverTable(tenants []ingester.TenantStats, now time.Time) *cli.Table {
	table := cli.NewTable("TENANT", "STATE", ">SERIES", ">SAMPLES/S", ">LAST WRITE", ">LAST FLUSH", ">OLDEST IN MEMORY",
		">LOCAL BLOCKS", ">NOT IN BUCKET")
	for _, t := range tenants {
		state := t.State
		if t.Damaged {
			state += ", damaged"
		}
		table.Row(t.Tenant, state, t.Series, fmt.Sprintf("%.1f", t.SamplesPerSecond), ago(t.LastAppend, now), ago(t.LastFlush, now),
			ago(t.OldestInMemory, now), t.LocalBlocks, t.UnshippedBlocks)
	}
	return table
}

// ago writes how long a time is past, or a dash when it is not known.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return max(0, now.Sub(t)).Truncate(time.Second).String() + " ago"
}

// inBucket is what the manifest of a tenant says.
type inBucket struct {
	Tenant  string    `json:"tenant"`
	Version uint64    `json:"manifest_version"`
	Blocks  int       `json:"blocks"`
	Samples uint64    `json:"samples"`
	Bytes   int64     `json:"bytes"`
	MinTime time.Time `json:"min_time,omitzero"`
	MaxTime time.Time `json:"max_time,omitzero"` // exclusive
	Error   string    `json:"error,omitempty"`
}

// ofBucket lists the tenants that have anything in a bucket. One whose manifest cannot be read does not hide the others.
func ofBucket(ctx context.Context, env cli.Env, s settings) (err error) {
	bkt, err := s.bucket.Open(env)
	if err != nil {
		return err
	}
	defer store.Close(bkt, &err)
	manifests := manifest.NewOwner(bkt, time.Now, slog.New(slog.DiscardHandler), nil)
	ids, err := manifests.Tenants(ctx)
	if err != nil {
		return err
	}
	tenants, wrong := make([]inBucket, 0, len(ids)), []error(nil)
	for _, id := range ids {
		m, err := manifests.Current(ctx, id)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			tenants = append(tenants, inBucket{Tenant: id, Error: err.Error()})
			wrong = append(wrong, err)
		default:
			tenants = append(tenants, sum(m))
		}
	}
	if err := show(env, s.format, tenants); err != nil {
		return err
	}
	return cli.Wrong(errors.Join(wrong...))
}

func sum(m *manifest.Manifest) inBucket {
	t := inBucket{Tenant: m.Tenant, Version: m.Version, Blocks: len(m.Blocks)}
	for _, b := range m.Blocks {
		t.Samples += b.Samples
		t.Bytes += b.SizeBytes
		if from := time.UnixMilli(b.MinTime).UTC(); t.MinTime.IsZero() || from.Before(t.MinTime) {
			t.MinTime = from
		}
		if to := time.UnixMilli(b.MaxTime).UTC(); to.After(t.MaxTime) {
			t.MaxTime = to
		}
	}
	return t
}

func show(env cli.Env, format string, tenants []inBucket) error {
	if format == "json" {
		e := json.NewEncoder(env.Stdout)
		return e.Encode(map[string][]inBucket{"tenants": tenants})
	}
	table := cli.NewTable("TENANT", ">BLOCKS", ">SAMPLES", ">SIZE", "FROM", "TO", ">MANIFEST")
	for _, t := range tenants {
		if t.Error != "" {
			table.Row(t.Tenant, "?", "?", "?", "?", "?", "unreadable")
			continue
		}
		table.Row(t.Tenant, t.Blocks, cli.Count(int64(t.Samples)), cli.Bytes(t.Bytes), date(t.MinTime), date(t.MaxTime), //nolint:gosec // a count
			t.Version)
	}
	return table.Write(env.Stdout)
}

func date(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.Format("2006-01-02 15:04")
}
