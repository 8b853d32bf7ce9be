package manifest

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/cmd/duramenctl/store"
	"github.com/duramendb/duramen/internal/cli"
)

func showCommand() cli.Command {
	var s settings
	var number uint64
	return cli.Command{
		Name: "show", Args: "[flags] [TENANT]", Summary: "show what the manifest of one tenant says, or a line for each tenant",
		Long: `With TENANT every block that the newest version lists is a line, and what it remembers as removed or lost; -version
takes another version that is still there. Without TENANT each tenant is a line. A version that cannot be read is named with
what is wrong about it, and with the newest one before it that can.

` + store.Help + `

Exit codes: 0 shown; 1 the bucket cannot be read, or has no such tenant or version; 2 wrong usage; 3 a manifest is damaged
or missing.`,
		Example: `duramenctl manifest show -bucket=./data/bucket
duramenctl manifest show -bucket=./data/bucket team-a
duramenctl manifest show -config=duramen.yaml -version=7 -format=json team-a`,
		Flags: func(f *flag.FlagSet) {
			s.registerFlags(f)
			f.Uint64Var(&number, "version", 0, "Show this version instead of the newest; 0 is the newest.")
		},
		Run: func(ctx context.Context, env cli.Env, args []string) error {
			if len(args) > 1 {
				return cli.Usagef("give one tenant or none")
			}
			if len(args) == 0 {
				if number != 0 {
					return cli.Usagef("-version needs a tenant")
				}
				return s.with(env, func(p *place) error { return p.overview(ctx) })
			}
			tenantID, err := tenantArgument(args[0])
			if err != nil {
				return err
			}
			return s.with(env, func(p *place) error { return p.show(ctx, tenantID, number) })
		},
	}
}

// shown is one version as JSON.
type shown struct {
	version
	// Versions are all that the bucket has, ascending.
	Versions []uint64           `json:"versions"`
	Manifest *manifest.Manifest `json:"manifest"`
}

func (p *place) show(ctx context.Context, tenantID string, number uint64) error {
	if _, err := p.tenants(ctx, tenantID); err != nil {
		return err
	}
	versions, err := p.versions(ctx, tenantID)
	if err != nil {
		return err
	}
	var m *manifest.Manifest
	if number == 0 {
		m, err = p.newest(ctx, tenantID, versions)
	} else {
		m, err = p.read(ctx, tenantID, number)
	}
	if err != nil {
		return err
	}
	out := shown{Manifest: m, version: version{Number: m.Version}}
	for _, v := range versions {
		out.Versions = append(out.Versions, v.Number)
		if v.Number == m.Version {
			out.version = v
		}
	}
	if p.format == "json" {
		return json.NewEncoder(p.env.Stdout).Encode(out)
	}
	return p.table(out)
}

func (p *place) table(out shown) error {
	m := out.Manifest
	if _, err := fmt.Fprintf(p.env.Stdout, "tenant %s, version %d, written %s, %s\nversions in the bucket: %s\n", m.Tenant, m.Version,
		clock(out.Written), cli.Bytes(out.Bytes), runs(out.Versions)); err != nil {
		return err
	}
	table := cli.NewTable("BLOCK", "FROM", "TO", ">LEVEL", ">SOURCES", ">SERIES", ">SAMPLES", ">SIZE", ">SIDECAR", "WRITER", "ADDED",
		">IN VERSION", "NOTES")
	for i := range m.Blocks {
		b := &m.Blocks[i]
		sidecar := "none"
		if b.SidecarBytes > 0 {
			sidecar = cli.Bytes(b.SidecarBytes)
		}
		table.Row(b.ULID, date(b.MinTime), date(b.MaxTime), b.Level, sources(b), b.Series, b.Samples, cli.Bytes(b.SizeBytes), sidecar,
			writer(b), date(b.AddedAt), b.AddedVersion, notes(b))
	}
	if err := table.Write(p.env.Stdout); err != nil {
		return err
	}
	var rest strings.Builder
	for _, r := range m.Removed {
		fmt.Fprintf(&rest, "removed: %s at %s\n", r.ULID, date(r.RemovedAt))
	}
	for _, l := range m.Lost {
		fmt.Fprintf(&rest, "lost: samples from %s to %s: %s\n", date(l.MinTime), date(l.MaxTime), l.Reason)
	}
	_, err := fmt.Fprint(p.env.Stdout, rest.String())
	return err
}

// notes says of a block what few blocks have.
func notes(b *manifest.Block) string {
	var parts []string
	if b.OutOfOrder {
		parts = append(parts, "out of order")
	}
	if len(b.Labels) > 0 {
		parts = append(parts, labels.FromMap(b.Labels).String())
	}
	if b.Shard != "" {
		parts = append(parts, "shard "+b.Shard)
	}
	if b.NoCompact != "" {
		parts = append(parts, "not compacted: "+b.NoCompact)
	}
	return strings.Join(parts, "; ")
}

// summary is one tenant in the overview.
type summary struct {
	Tenant  string `json:"tenant"`
	Version uint64 `json:"version"`
	Blocks  int    `json:"blocks"`
	Removed int    `json:"removed"`
	Lost    int    `json:"lost"`
	// SizeBytes is that of the blocks.
	SizeBytes int64  `json:"size_bytes"`
	Error     string `json:"error,omitempty"`
}

func (p *place) overview(ctx context.Context) error {
	ids, err := p.tenants(ctx, "")
	if err != nil {
		return err
	}
	rows, wrong := []summary{}, []error(nil)
	for _, id := range ids {
		row, err := p.summarise(ctx, id)
		if errors.Is(err, cli.ErrWrong) {
			row.Error = err.Error()
			wrong = append(wrong, err)
		} else if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return store.NoBucket(p.bkt.Name())
	}
	if err := p.writeOverview(rows); err != nil {
		return err
	}
	return cli.Wrong(errors.Join(wrong...))
}

func (p *place) summarise(ctx context.Context, tenantID string) (row summary, err error) {
	row.Tenant = tenantID
	versions, err := p.versions(ctx, tenantID)
	if err != nil {
		return row, err
	}
	if len(versions) > 0 {
		row.Version = versions[len(versions)-1].Number
	}
	m, err := p.newest(ctx, tenantID, versions)
	if err != nil {
		return row, err
	}
	row.Blocks, row.Removed, row.Lost = len(m.Blocks), len(m.Removed), len(m.Lost)
	for i := range m.Blocks {
		row.SizeBytes += m.Blocks[i].SizeBytes
	}
	return row, nil
}

func (p *place) writeOverview(rows []summary) error {
	if p.format == "json" {
		return json.NewEncoder(p.env.Stdout).Encode(map[string][]summary{"tenants": rows})
	}
	table := cli.NewTable("TENANT", ">VERSION", ">BLOCKS", ">SIZE", ">REMOVED", ">LOST RANGES", "STATE")
	for _, r := range rows {
		switch {
		case r.Version == 0:
			table.Row(r.Tenant, "–", "–", "–", "–", "–", "no manifest")
		case r.Error != "":
			table.Row(r.Tenant, r.Version, "?", "?", "?", "?", "unreadable")
		default:
			table.Row(r.Tenant, r.Version, r.Blocks, cli.Bytes(r.SizeBytes), r.Removed, r.Lost, "readable")
		}
	}
	return table.Write(p.env.Stdout)
}

// sources counts those of a block, 0 for one that is its own.
func sources(b *manifest.Block) int {
	if slices.Equal(b.Sources, []ulid.ULID{b.ULID}) {
		return 0
	}
	return len(b.Sources)
}

func writer(b *manifest.Block) string {
	if b.Writer == "" {
		return "another program"
	}
	return b.Writer
}

// runs writes ascending numbers with each run of neighbours as one: 1, 4–7.
func runs(numbers []uint64) string {
	var parts []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		if i == j {
			parts = append(parts, fmt.Sprint(numbers[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d–%d", numbers[i], numbers[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ", ")
}
