package manifest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/cmd/duramenctl/store"
	"github.com/duramendb/duramen/internal/cli"
)

func diffCommand() cli.Command {
	var s settings
	return cli.Command{
		Name: "diff", Args: "[flags] TENANT [V1 [V2]]", Summary: "compare two versions of a manifest, or the newest with the bucket",
		Long: `With versions, what changed from V1 to V2, or to the newest, is shown: "+" entered, "-" left, "~" is described anew.
What left says where its samples are: in a block that was made of it, or nowhere, because it was removed. Without a version
the newest one is compared with the objects in the bucket.

` + store.Help + `

Exit codes: 0 compared; 1 the bucket cannot be read, or has no such tenant or version; 2 wrong usage; 3 a manifest is damaged
or missing, or lists a block that lacks objects.`,
		Example: `duramenctl manifest diff -bucket=./data/bucket team-a
duramenctl manifest diff -bucket=./data/bucket team-a 7
duramenctl manifest diff -bucket=./data/bucket -format=json team-a 7 9`,
		Flags: s.registerFlags,
		Run: func(ctx context.Context, env cli.Env, args []string) error {
			if len(args) == 0 || len(args) > 3 {
				return cli.Usagef("give a tenant and up to two versions")
			}
			tenantID, err := tenantArgument(args[0])
			if err != nil {
				return err
			}
			numbers := make([]uint64, 0, 2)
			for _, arg := range args[1:] {
				n, err := versionArgument(arg)
				if err != nil {
					return err
				}
				numbers = append(numbers, n)
			}
			return s.with(env, func(p *place) error { return p.diff(ctx, tenantID, numbers) })
		},
	}
}

func (p *place) diff(ctx context.Context, tenantID string, numbers []uint64) error {
	if _, err := p.tenants(ctx, tenantID); err != nil {
		return err
	}
	if len(numbers) == 0 {
		return p.diffBucket(ctx, tenantID)
	}
	a, err := p.read(ctx, tenantID, numbers[0])
	if err != nil {
		return err
	}
	var b *manifest.Manifest
	if len(numbers) == 2 {
		b, err = p.read(ctx, tenantID, numbers[1])
	} else {
		var versions []version
		if versions, err = p.versions(ctx, tenantID); err == nil {
			b, err = p.newest(ctx, tenantID, versions)
		}
	}
	if err != nil {
		return err
	}
	return p.writeChange(compare(a, b))
}

// change is what differs from one version to another.
type change struct {
	Tenant string `json:"tenant"`
	From   uint64 `json:"from"`
	To     uint64 `json:"to"`
	// Entered and Left are blocks that only the second or only the first lists.
	Entered []manifest.Block `json:"entered"`
	Left    []left           `json:"left"`
	Changed []changed        `json:"changed"`
	// Remembered and Forgotten are removed blocks that only the second or only the first remembers.
	Remembered []ulid.ULID `json:"remembered"`
	Forgotten  []ulid.ULID `json:"forgotten"`
	// Lost are ranges of time that only the second has as lost.
	Lost []manifest.LostRange `json:"lost"`
}

// left is a block that is not listed any more.
type left struct {
	manifest.Block
	// CoveredBy are the blocks that hold its samples now, none when the samples are gone.
	CoveredBy []ulid.ULID `json:"covered_by,omitempty"`
}

// changed is a block of which the versions say different things.
type changed struct {
	ULID ulid.ULID `json:"ulid"`
	// Fields holds before and after by the name of the field in the manifest; null where a field was absent.
	Fields map[string][2]json.RawMessage `json:"fields"`
}

func compare(a, b *manifest.Manifest) change {
	c := change{
		Tenant: a.Tenant, From: a.Version, To: b.Version,
		Entered: []manifest.Block{}, Left: []left{}, Changed: []changed{},
		Remembered: removedOnlyIn(b, a), Forgotten: removedOnlyIn(a, b), Lost: []manifest.LostRange{},
	}
	for _, l := range b.Lost {
		if !slices.Contains(a.Lost, l) {
			c.Lost = append(c.Lost, l)
		}
	}
	before, after := byID(a.Blocks), byID(b.Blocks)
	for i := range b.Blocks {
		now := &b.Blocks[i]
		was, ok := before[now.ULID]
		if !ok {
			c.Entered = append(c.Entered, *now)
		} else if fields := differing(was, now); len(fields) > 0 {
			c.Changed = append(c.Changed, changed{now.ULID, fields})
		}
	}
	cover := coverage(b)
	for i := range a.Blocks {
		was := &a.Blocks[i]
		if _, ok := after[was.ULID]; !ok {
			c.Left = append(c.Left, left{*was, coveredBy(was, cover)})
		}
	}
	return c
}

func byID(blocks []manifest.Block) map[ulid.ULID]*manifest.Block {
	found := make(map[ulid.ULID]*manifest.Block, len(blocks))
	for i := range blocks {
		found[blocks[i].ULID] = &blocks[i]
	}
	return found
}

// coverage returns for each source of the blocks that are listed which ones those are: several when they are shards.
func coverage(m *manifest.Manifest) map[ulid.ULID][]ulid.ULID {
	cover := map[ulid.ULID][]ulid.ULID{}
	for i := range m.Blocks {
		for _, source := range m.Blocks[i].Sources {
			cover[source] = append(cover[source], m.Blocks[i].ULID)
		}
	}
	return cover
}

// coveredBy returns the blocks that hold the samples of b, none unless all of its sources are covered.
func coveredBy(b *manifest.Block, cover map[ulid.ULID][]ulid.ULID) (by []ulid.ULID) {
	for _, source := range b.Sources {
		if len(cover[source]) == 0 {
			return nil
		}
		by = append(by, cover[source]...)
	}
	slices.SortFunc(by, ulid.ULID.Compare)
	return slices.Compact(by)
}

func removedOnlyIn(m, other *manifest.Manifest) []ulid.ULID {
	known := map[ulid.ULID]bool{}
	for _, r := range other.Removed {
		known[r.ULID] = true
	}
	only := []ulid.ULID{}
	for _, r := range m.Removed {
		if !known[r.ULID] {
			only = append(only, r.ULID)
		}
	}
	return only
}

// differing returns the fields in which two descriptions of a block differ, by their names in the manifest: so a field that
// is added to the format is compared too.
func differing(a, b *manifest.Block) map[string][2]json.RawMessage {
	before, after := fieldsOf(a), fieldsOf(b)
	found := map[string][2]json.RawMessage{}
	for name, was := range before {
		if now := after[name]; string(was) != string(now) {
			found[name] = [2]json.RawMessage{was, now}
		}
	}
	for name, now := range after {
		if _, ok := before[name]; !ok {
			found[name] = [2]json.RawMessage{nil, now}
		}
	}
	return found
}

func fieldsOf(b *manifest.Block) map[string]json.RawMessage {
	fields := map[string]json.RawMessage{}
	data, err := json.Marshal(b)
	if err == nil {
		err = json.Unmarshal(data, &fields)
	}
	if err != nil { // the manifest was JSON a moment ago
		fields["unreadable"] = json.RawMessage(fmt.Sprintf("%q", err))
	}
	return fields
}

func (p *place) writeChange(c change) error {
	if p.format == "json" {
		return json.NewEncoder(p.env.Stdout).Encode(c)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "tenant %s, from version %d to %d: %d blocks entered, %d left, %d described anew\n", c.Tenant, c.From, c.To,
		len(c.Entered), len(c.Left), len(c.Changed))
	c.write(&out)
	_, err := fmt.Fprint(p.env.Stdout, out.String())
	return err
}

// write writes a line for each thing that changed.
func (c *change) write(out *strings.Builder) {
	for i := range c.Entered {
		fmt.Fprintf(out, "+ %s\n", describe(&c.Entered[i]))
	}
	for i := range c.Left {
		where := "its samples are gone"
		if c.From > c.To {
			where = fmt.Sprintf("it entered after version %d", c.To)
		} else if by := c.Left[i].CoveredBy; len(by) > 0 {
			where = "its samples are in " + join(by)
		}
		fmt.Fprintf(out, "- %s; %s\n", describe(&c.Left[i].Block), where)
	}
	for _, b := range c.Changed {
		fmt.Fprintf(out, "~ %s:", b.ULID)
		for i, name := range slices.Sorted(maps.Keys(b.Fields)) {
			if i > 0 {
				out.WriteByte(',')
			}
			fmt.Fprintf(out, " %s %s → %s", name, value(b.Fields[name][0]), value(b.Fields[name][1]))
		}
		out.WriteByte('\n')
	}
	for _, id := range c.Remembered {
		fmt.Fprintf(out, "remembered as removed: %s\n", id)
	}
	for _, id := range c.Forgotten {
		fmt.Fprintf(out, "not remembered any more: %s\n", id)
	}
	for _, l := range c.Lost {
		fmt.Fprintf(out, "lost: samples from %s to %s: %s\n", date(l.MinTime), date(l.MaxTime), l.Reason)
	}
}

func join(ids []ulid.ULID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = id.String()
	}
	return strings.Join(texts, ", ")
}

func value(v json.RawMessage) string {
	if v == nil {
		return "–"
	}
	return string(v)
}

func describe(b *manifest.Block) string {
	return fmt.Sprintf("%s %s to %s, level %d, %d series, %d samples, %s, %s", b.ULID, date(b.MinTime), date(b.MaxTime), b.Level,
		b.Series, b.Samples, cli.Bytes(b.SizeBytes), writer(b))
}
