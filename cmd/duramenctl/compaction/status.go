package compaction

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/cmd/duramenctl/store"
	"github.com/duramendb/duramen/compactor/plan"
	"github.com/duramendb/duramen/internal/cli"
)

// StatusCommand returns the command that says how a tenant is.
func StatusCommand() cli.Command {
	var s settings
	var maxAge time.Duration
	return cli.Command{
		Name: "status", Args: "[flags] TENANT", Summary: "show how far the blocks of a tenant are: lag, slots, deletions, losses",
		Long: `What the bucket knows of a tenant: how long compaction has been waiting and for what, slots and days that are not done,
deletions with the blocks that they still have to be worked into, damaged blocks that were set aside, samples that were lost, and
whether the tenant is to be deleted. Flags stand for what a running compactor knows from its settings and from the ring.

` + store.Help + `

Exit codes: 0 all is well; 1 the bucket cannot be read, or has no such tenant; 2 wrong usage; 3 the manifest is damaged, a slot
has been waiting for longer than -max-age, or blocks are left alone that somebody has to look at.`,
		Example: `duramenctl status -bucket=./data/bucket team-a
duramenctl status -bucket=./data/bucket -max-age=6h -format=json team-a`,
		Flags: func(f *flag.FlagSet) {
			s.registerFlags(f)
			f.DurationVar(&maxAge, "max-age", 12*time.Hour, "For how long a slot may have been waiting.")
		},
		Run: func(ctx context.Context, env cli.Env, args []string) error {
			tenantID, at, err := s.arguments(args, time.Now())
			if err != nil {
				return err
			}
			return s.with(ctx, env, tenantID, func(p *place) error {
				st, err := p.status(ctx, plan.Make(p.manifest, at, s.limits))
				if err != nil {
					return err
				}
				if s.format == "json" {
					err = json.NewEncoder(env.Stdout).Encode(st)
				} else {
					err = st.write(env.Stdout)
				}
				if err != nil {
					return err
				}
				return cli.Wrong(st.verdict(maxAge))
			})
		},
	}
}

// status is what is told of a tenant.
type status struct {
	Tenant  string `json:"tenant"`
	Version uint64 `json:"version"`
	Blocks  int    `json:"blocks"`
	Bytes   int64  `json:"bytes"`
	Samples uint64 `json:"samples"`
	MinTime int64  `json:"min_time"`
	MaxTime int64  `json:"max_time"`
	// Plan has lag, slots, jobs and skips.
	Plan      *plan.Plan           `json:"plan"`
	Deletions []deletion           `json:"deletions"`
	Kept      []kept               `json:"kept"`
	Reports   []string             `json:"quarantine_reports"`
	Lost      []manifest.LostRange `json:"lost"`
	// Doomed is set when the tenant is to be deleted, or was.
	Doomed *manifest.TenantDeletion `json:"tenant_deletion,omitempty"`
}

// deletion is one with the blocks that it is not worked into yet.
type deletion struct {
	manifest.Deletion

	Pending []ulid.ULID `json:"pending"`
}

// kept is a block that left the manifest and whose objects are kept for somebody to look at.
type kept struct {
	ULID  ulid.ULID `json:"ulid"`
	Until int64     `json:"until"`
}

func (p *place) status(ctx context.Context, made *plan.Plan) (*status, error) {
	m := p.manifest
	st := &status{
		Tenant: m.Tenant, Version: m.Version, Blocks: len(m.Blocks), Plan: made, Doomed: m.Doomed,
		Deletions: []deletion{}, Kept: []kept{}, Reports: []string{}, Lost: append([]manifest.LostRange{}, m.Lost...),
	}
	for i := range m.Blocks {
		b := &m.Blocks[i]
		if i == 0 {
			st.MinTime = b.MinTime
		}
		st.Bytes += b.SizeBytes
		st.Samples += b.Samples
		st.MinTime, st.MaxTime = min(st.MinTime, b.MinTime), max(st.MaxTime, b.MaxTime)
	}
	for _, d := range m.Deletions {
		st.Deletions = append(st.Deletions, deletion{d, append([]ulid.ULID{}, m.Pending(d.ID)...)})
	}
	for _, r := range m.Removed {
		if r.KeepUntil > 0 {
			st.Kept = append(st.Kept, kept{r.ULID, r.KeepUntil})
		}
	}
	err := p.bkt.List(ctx, m.Tenant+"/duramen/quarantine/", true, func(o bucket.Object) error {
		st.Reports = append(st.Reports, o.Key)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list reports of tenant %s: %w", m.Tenant, err)
	}
	return st, nil
}

// verdict is what somebody has to look at, nil for nothing.
func (st *status) verdict(maxAge time.Duration) error {
	var wrong []error
	if age := st.Plan.Age(); age > maxAge {
		wrong = append(wrong, fmt.Errorf("a slot of tenant %s has been waiting for %v", st.Tenant, age.Round(time.Minute)))
	}
	for i := range st.Plan.Skips {
		if s := &st.Plan.Skips[i]; s.Blocking {
			wrong = append(wrong, fmt.Errorf("%d blocks of tenant %s are left alone: %s", len(s.Blocks), st.Tenant, s.Reason))
		}
	}
	return errors.Join(wrong...)
}

// write writes the status for people.
func (st *status) write(w io.Writer) error {
	var b strings.Builder
	if d := st.Doomed; d != nil {
		b.WriteString(doom(d) + "\n")
	}
	if err := st.Plan.Text(&b); err != nil {
		return err
	}
	fmt.Fprintf(&b, "\nin all %s in %d blocks, %s samples", cli.Bytes(st.Bytes), st.Blocks, cli.Count(int64(st.Samples)))
	if st.Blocks > 0 {
		fmt.Fprintf(&b, ", from %s to %s", date(st.MinTime), date(st.MaxTime))
	}
	b.WriteString("\n")
	done := 0
	for _, d := range st.Deletions {
		if len(d.Pending) == 0 {
			done++
			continue
		}
		fmt.Fprintf(&b, "deletion %d of %s from %s to %s: hidden since %s, %d blocks still to be written without it\n",
			d.ID, strings.Join(d.Selectors, ", "), date(d.MinTime), date(d.MaxTime), date(d.CreatedAt), len(d.Pending))
	}
	if done > 0 {
		fmt.Fprintf(&b, "deletions that are worked in everywhere: %d\n", done)
	}
	for _, k := range st.Kept {
		fmt.Fprintf(&b, "damaged and set aside: block %s, kept until %s\n", k.ULID, date(k.Until))
	}
	for _, key := range st.Reports {
		fmt.Fprintf(&b, "report of a damaged block: %s\n", strings.TrimSuffix(path.Base(key), ".json")+", in "+key)
	}
	for _, l := range st.Lost {
		fmt.Fprintf(&b, "lost: samples from %s to %s: %s\n", date(l.MinTime), date(l.MaxTime), l.Reason)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// doom says how far the deletion of a tenant is.
func doom(d *manifest.TenantDeletion) string {
	if d.FinishedAt != 0 {
		return fmt.Sprintf("the tenant was deleted: %d blocks, %s, nothing was left at %s", d.Blocks, cli.Bytes(d.Bytes), date(d.FinishedAt))
	}
	return fmt.Sprintf("the tenant is to be deleted, as was requested at %s; that can be taken back without a loss until %s",
		date(d.RequestedAt), date(d.GraceUntil))
}

func date(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04") }
