// Package backfill is the command that brings blocks of a local disk into a bucket: from a Prometheus, or made by promtool.
// It refuses blocks that are damaged or hold deleted samples, and ends with what queries see of them. Read package
// chunkstore/block next for how a block is sent.
package backfill

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/duramendb/duramen/cmd/duramenctl/store"
	"github.com/duramendb/duramen/internal/cli"
	"github.com/duramendb/duramen/tenant"
)

// writer is duramen.writer of the blocks that this command sends.
const writer = "duramenctl"

// settings are the flags.
type settings struct {
	bucket store.Flags
	tenant string
	labels externalLabels
	url    string
	access cli.Access
	wait   time.Duration
	dryRun bool
	show   int
}

func (s *settings) registerFlags(f *flag.FlagSet) {
	s.bucket.RegisterFlags(f)
	s.labels = externalLabels{}
	f.StringVar(&s.tenant, "tenant", "anonymous", "The tenant to whom the blocks will belong. The default is that of a single node.")
	f.Var(s.labels, "external-label", "A `name=value` that each series gets, as the external labels of a Prometheus. Can be given again.")
	f.StringVar(&s.url, "url", "", "Where a Duramen on this bucket listens: it is asked for one sample of each block, until it has it.")
	s.access.RegisterFlags(f)
	f.DurationVar(&s.wait, "wait", time.Minute, "How long -url is asked.")
	f.BoolVar(&s.dryRun, "dry-run", false, "Check the blocks and say what would be sent, and send nothing.")
	f.IntVar(&s.show, "show", 20, "How many faults of one block are shown; all are counted.")
}

// Command returns the command.
func Command() cli.Command {
	var s settings
	return cli.Command{
		Name: "upload", Args: "-bucket=BUCKET [flags] DIR...",
		Summary: "bring blocks of a Prometheus, or made by promtool, into a bucket",
		Long: `A DIR is a block, or a folder of blocks: the data directory of a Prometheus, a snapshot of one, or what
"promtool tsdb create-blocks-from" wrote. Each block is read to its last byte first; one with a fault, or with deleted
samples, is named and not sent. Blocks keep their ULID: run it again after an interruption, or later with new blocks; what
is there is compared and not sent again. They may overlap one another and what the tenant has.

A running Prometheus has its newest two to three hours in no block; a snapshot (POST /api/v1/admin/tsdb/snapshot) has them.
Samples of the last 11 hours are seen by queries when they are 11 hours old, because recent data is asked of ingesters.

` + store.Help + `

Exit codes: 0 all blocks are in the bucket and listed, and answered by -url; 1 the bucket or the server cannot be asked, run
it again; 2 wrong usage; 3 the rest was sent, and some block was not, or was not seen by queries in time.`,
		Example: `duramenctl blocks upload -bucket=./data/bucket -url=http://localhost:9009 /var/lib/prometheus/data
duramenctl blocks upload -bucket=./data/bucket -tenant=team-a -external-label=cluster=eu -external-label=replica=0 ./blocks
duramenctl blocks upload -bucket='s3://metrics/?endpoint=minio:9000&insecure=true' -dry-run ./data/01KAH2V5X4S3P8Y4QW4Q5B6Z7C`,
		Flags: s.registerFlags,
		Run: func(ctx context.Context, env cli.Env, args []string) error {
			return run(ctx, env, s, args, time.Now)
		},
	}
}

func (s *settings) validate(dirs []string) error {
	if len(dirs) == 0 {
		return cli.Usagef("give at least one directory of blocks")
	}
	if err := tenant.ValidateID(s.tenant); err != nil {
		return cli.Usagef("-tenant: %w", err)
	}
	if s.wait <= 0 {
		return cli.Usagef("-wait: %s is not above zero", s.wait)
	}
	if s.url == "" {
		return nil
	}
	server := cli.Server{URL: s.url, Access: s.access}
	err := server.Validate()
	s.url = server.URL
	return err
}

func run(ctx context.Context, env cli.Env, s settings, dirs []string, now func() time.Time) (err error) {
	if err := s.validate(dirs); err != nil {
		return err
	}
	found, err := find(dirs)
	if err != nil {
		return err
	}
	bkt, err := s.bucket.Open(env)
	if err != nil {
		return err
	}
	defer store.Close(bkt, &err)
	u := newUploader(env, s, bkt, now)
	for _, note := range found.notes {
		fmt.Fprintln(env.Stderr, note)
	}
	u.wrong = found.wrong
	if err := u.all(ctx, found.blocks); err != nil {
		return err
	}
	return u.end(ctx)
}

// externalLabels is the value of -external-label.
type externalLabels map[string]string

// String implements flag.Value.
func (l externalLabels) String() string { return "" }

// Set implements flag.Value.
func (l externalLabels) Set(text string) error {
	name, value, ok := strings.Cut(text, "=")
	switch {
	case !ok || value == "":
		return fmt.Errorf("%q is not name=value", text)
	case !model.UTF8Validation.IsValidLabelName(name) || !model.LabelValue(value).IsValid():
		return fmt.Errorf("%q is no label", text)
	case strings.HasPrefix(name, model.ReservedLabelPrefix):
		return fmt.Errorf("%q: names that begin with %s are not for external labels", text, model.ReservedLabelPrefix)
	}
	if _, twice := l[name]; twice {
		return fmt.Errorf("%q is given twice", name)
	}
	l[name] = value
	return nil
}
