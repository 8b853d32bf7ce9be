package blocks

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockcheck"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/cmd/duramenctl/store"
	"github.com/duramendb/duramen/internal/cli"
)

func listCommand() cli.Command {
	var s settings
	return cli.Command{
		Name: "list", Args: "[flags] [TENANT]", Summary: "list the blocks of all tenants or of one",
		Long: `Blocks are listed from the newest manifest of each tenant, and compared with the objects in the bucket. The state
says: "listed" is in the manifest and complete by its names; "incomplete" is in the manifest and lacks objects; "unlisted"
has objects and is not in the manifest, because it is being uploaded, was left over, or was written by another program;
"removed" is one that the manifest remembers as removed. Only what is listed is queried.

` + store.Help + `

Exit codes: 0 listed; 1 the bucket cannot be read; 2 wrong usage; 3 listed, and a manifest is unreadable or a block
incomplete.`,
		Example: `duramenctl blocks list -bucket=./data/bucket
duramenctl blocks list -bucket='s3://metrics/?endpoint=minio:9000&insecure=true' team-a
duramenctl blocks list -config=duramen.yaml -format=json team-a`,
		Flags: s.registerFlags,
		Run: func(ctx context.Context, env cli.Env, args []string) (err error) {
			if len(args) > 1 {
				return cli.Usagef("give one tenant or none")
			}
			named, _, err := arguments(args)
			if err == nil {
				err = s.validate()
			}
			if err != nil {
				return err
			}
			p, err := s.open(env)
			if err != nil {
				return err
			}
			defer store.Close(p.bkt, &err)
			return p.list(ctx, env, s.format, named)
		},
	}
}

// The states of a block in a list.
const (
	stateListed     = "listed"
	stateIncomplete = "incomplete"
	stateUnlisted   = "unlisted"
	stateRemoved    = "removed"
)

// listed is one block in a list. What only a manifest says is zero for a block that is in none.
type listed struct {
	Tenant string `json:"tenant"`
	State  string `json:"state"`
	manifest.Block
	// Objects and ObjectBytes are what the bucket holds.
	Objects     int   `json:"objects"`
	ObjectBytes int64 `json:"object_bytes"`
}

// other is an object that belongs to no block and no manifest.
type other struct {
	Key   string `json:"key"`
	Bytes int64  `json:"bytes"`
}

func (p *place) list(ctx context.Context, env cli.Env, format, named string) error {
	tenants, err := p.tenants(ctx, named)
	if err != nil {
		return err
	}
	blocks, others, wrong := []listed{}, []other{}, []error(nil)
	for _, id := range tenants {
		inv, err := blockcheck.Take(ctx, p.bkt, p.manifests, id)
		if inv == nil {
			return err
		}
		if err != nil { // its blocks are shown nevertheless, as unlisted ones
			wrong = append(wrong, err)
		}
		found := rows(id, inv)
		for _, b := range found {
			if b.State == stateIncomplete {
				wrong = append(wrong, fmt.Errorf("tenant %s: block %s is listed and lacks objects", id, b.ULID))
			}
		}
		blocks = append(blocks, found...)
		for _, o := range inv.Others {
			others = append(others, other{o.Key, o.Size})
		}
	}
	if err := writeList(env, format, blocks, others); err != nil {
		return err
	}
	return join(wrong)
}

// rows returns the blocks of one tenant: those of the manifest in its order, then the others by ULID.
func rows(tenantID string, inv *blockcheck.Inventory) []listed {
	var out []listed
	row := func(state string, b manifest.Block) {
		r := listed{Tenant: tenantID, State: state, Block: b}
		if o := inv.Blocks[b.ULID]; o != nil {
			r.Objects, r.ObjectBytes = len(o.Files), o.Bytes
		}
		out = append(out, r)
	}
	for _, b := range inv.Manifest.Blocks {
		state := stateListed
		if !complete(inv.Blocks[b.ULID], b) {
			state = stateIncomplete
		}
		row(state, b)
	}
	for _, id := range inv.Unlisted() {
		state := stateUnlisted
		if inv.Removed(id) {
			state = stateRemoved
		}
		row(state, manifest.Block{ULID: id})
	}
	return out
}

// complete reports whether the objects that every block has are there.
func complete(o *blockcheck.Objects, b manifest.Block) bool {
	if o == nil {
		return false
	}
	for _, name := range []string{block.MetaName, block.IndexName, block.SegmentName(1)} {
		if _, ok := o.Files[name]; !ok && (name != block.SegmentName(1) || b.Chunks > 0) {
			return false
		}
	}
	return true
}

func writeList(env cli.Env, format string, blocks []listed, others []other) error {
	if format == "json" {
		return json.NewEncoder(env.Stdout).Encode(map[string]any{"blocks": blocks, "others": others})
	}
	table := cli.NewTable("TENANT", "BLOCK", "FROM", "TO", ">SERIES", ">SAMPLES", ">SIZE", ">LEVEL", ">SOURCES", "WRITER", "STATE")
	for _, b := range blocks {
		if b.State == stateUnlisted || b.State == stateRemoved {
			table.Row(b.Tenant, b.ULID, "–", "–", "–", "–", cli.Bytes(b.ObjectBytes), "–", "–", "–", b.State)
			continue
		}
		sources := len(b.Sources)
		if slices.Equal(b.Sources, []ulid.ULID{b.ULID}) {
			sources = 0 // itself
		}
		table.Row(b.Tenant, b.ULID, date(b.MinTime), date(b.MaxTime), b.Series, b.Samples, cli.Bytes(b.SizeBytes), b.Level, sources,
			writer(b.Writer), b.State)
	}
	if err := table.Write(env.Stdout); err != nil {
		return err
	}
	for _, o := range others {
		if _, err := fmt.Fprintf(env.Stdout, "object of no block: %s, %s\n", o.Key, cli.Bytes(o.Bytes)); err != nil {
			return err
		}
	}
	return nil
}

func writer(name string) string {
	if name == "" {
		return "another program"
	}
	return name
}
