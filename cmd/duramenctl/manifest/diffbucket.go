package manifest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockcheck"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/cli"
)

// bucketDiff is how the newest version compares with the objects in the bucket.
type bucketDiff struct {
	Tenant  string `json:"tenant"`
	Version uint64 `json:"version"`
	// Listed counts the blocks of the manifest, those that lack objects included.
	Listed  int       `json:"listed"`
	Lacking []lacking `json:"lacking"`
	// Unlisted are blocks with objects that the manifest does not list, in their order of time.
	Unlisted []unlisted `json:"unlisted"`
}

// lacking is a block that is listed and has not all of its objects.
type lacking struct {
	ULID    ulid.ULID `json:"ulid"`
	Objects []string  `json:"objects"`
}

// unlisted is a block of which the bucket has objects and the manifest says nothing, or that it left.
type unlisted struct {
	ULID    ulid.ULID `json:"ulid"`
	Objects int       `json:"objects"`
	Bytes   int64     `json:"bytes"`
	// Complete is set when meta.json, which an upload puts last, is there.
	Complete bool `json:"complete"`
	// Standing is "covered" when a listed block holds the samples, "removed" when the manifest remembers that, else "new".
	Standing string `json:"standing"`
}

func (p *place) diffBucket(ctx context.Context, tenantID string) error {
	versions, err := p.versions(ctx, tenantID)
	if err == nil {
		_, err = p.newest(ctx, tenantID, versions) // says more about a damaged one than the owner does
	}
	if err != nil {
		return err
	}
	inv, err := blockcheck.Take(ctx, p.bkt, p.manifests, tenantID)
	if err != nil {
		return err
	}
	d := compareBucket(tenantID, inv)
	if err := p.writeBucketDiff(d); err != nil {
		return err
	}
	var wrong []error
	for _, b := range d.Lacking {
		wrong = append(wrong, fmt.Errorf("block %s is listed and lacks %s", b.ULID, strings.Join(b.Objects, ", ")))
	}
	return cli.Wrong(errors.Join(wrong...))
}

func compareBucket(tenantID string, inv *blockcheck.Inventory) bucketDiff {
	m := inv.Manifest
	d := bucketDiff{Tenant: tenantID, Version: m.Version, Listed: len(m.Blocks), Lacking: []lacking{}, Unlisted: []unlisted{}}
	for i := range m.Blocks {
		b := &m.Blocks[i]
		if names := missing(inv.Blocks[b.ULID], b); len(names) > 0 {
			d.Lacking = append(d.Lacking, lacking{b.ULID, names})
		}
	}
	cover := coverage(m)
	for _, id := range inv.Unlisted() {
		o := inv.Blocks[id]
		_, complete := o.Files[block.MetaName]
		standing := "new"
		if _, ok := cover[id]; ok {
			standing = "covered"
		} else if inv.Removed(id) {
			standing = "removed"
		}
		d.Unlisted = append(d.Unlisted, unlisted{id, len(o.Files), o.Bytes, complete, standing})
	}
	return d
}

// missing returns which of the objects that every block has are not there.
func missing(o *blockcheck.Objects, b *manifest.Block) (names []string) {
	for _, name := range []string{block.MetaName, block.IndexName, block.SegmentName(1)} {
		if name == block.SegmentName(1) && b.Chunks == 0 {
			continue
		}
		if o == nil {
			names = append(names, name)
		} else if _, ok := o.Files[name]; !ok {
			names = append(names, name)
		}
	}
	return names
}

func (p *place) writeBucketDiff(d bucketDiff) error {
	if p.format == "json" {
		return json.NewEncoder(p.env.Stdout).Encode(d)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "tenant %s, version %d: %d blocks listed, %d lack objects, %d in the bucket are not listed\n", d.Tenant, d.Version,
		d.Listed, len(d.Lacking), len(d.Unlisted))
	for _, b := range d.Lacking {
		fmt.Fprintf(&out, "- %s lacks %s\n", b.ULID, strings.Join(b.Objects, ", "))
	}
	for _, b := range d.Unlisted {
		text := "not known to the manifest"
		switch {
		case b.Standing == "covered":
			text = "its samples are in a listed block"
		case b.Standing == "removed":
			text = "removed before"
		case !b.Complete:
			text += ", no meta.json: being uploaded, or left over"
		}
		fmt.Fprintf(&out, "+ %s %d objects, %s; %s\n", b.ULID, b.Objects, cli.Bytes(b.Bytes), text)
	}
	_, err := fmt.Fprint(p.env.Stdout, out.String())
	return err
}
