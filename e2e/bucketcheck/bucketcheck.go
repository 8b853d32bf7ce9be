// Package bucketcheck judges what a tenant's folder in the bucket holds once all that was written has arrived: a history of
// manifests without gaps in which nothing is lost, every block that the newest of them lists, and what no manifest lists. It
// repairs nothing and knows no samples. Read package block next for what makes a block complete.
package bucketcheck

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// Report is what was found right, and what is no fault by itself.
type Report struct {
	// Versions are the manifest versions that are there, Blocks those that the newest of them lists.
	Versions int
	Blocks   []manifest.Block
	// Unlisted are blocks, complete or not, that the newest manifest does not list: a process that was killed between an
	// upload and its announcement, and did not keep the block, leaves one behind.
	Unlisted []ulid.ULID
}

// Check reads everything of a tenant that compactors do not touch. The error names the first fault.
func Check(ctx context.Context, b bucket.Bucket, tenantID string) (Report, error) {
	c := checker{b: b, tenantID: tenantID, folders: map[ulid.ULID]bool{}}
	if err := b.List(ctx, tenantID+"/", true, func(o bucket.Object) error { return c.object(ctx, o) }); err != nil {
		return Report{}, err
	}
	r := Report{Versions: len(c.versions)}
	for i := 1; i < len(c.versions); i++ {
		if err := follows(c.versions[i-1], c.versions[i]); err != nil {
			return r, err
		}
	}
	if len(c.versions) > 0 {
		r.Blocks = c.versions[len(c.versions)-1].Blocks
	}
	for _, listed := range r.Blocks {
		if err := block.Verify(ctx, b, tenantID, listed.ULID); err != nil {
			return r, err
		}
		delete(c.folders, listed.ULID)
	}
	for id := range c.folders {
		r.Unlisted = append(r.Unlisted, id)
	}
	return r, nil
}

type checker struct {
	b        bucket.Bucket
	tenantID string
	versions []*manifest.Manifest // in order
	folders  map[ulid.ULID]bool
}

func (c *checker) object(ctx context.Context, o bucket.Object) error {
	folder, _, _ := strings.Cut(strings.TrimPrefix(o.Key, c.tenantID+"/"), "/")
	if id, err := ulid.ParseStrict(folder); err == nil {
		c.folders[id] = true
		return nil
	}
	if folder == "bucket-index.json.gz" || folder == "markers" {
		return nil // for readers of peers
	}
	if !strings.HasPrefix(o.Key, manifest.Prefix(c.tenantID)) {
		return fmt.Errorf("the bucket holds %s, which nobody writes", o.Key)
	}
	body, err := c.b.Get(ctx, o.Key)
	if err != nil {
		return err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	m, err := manifest.Decode(data)
	if err != nil {
		return fmt.Errorf("%s: %w", o.Key, err)
	}
	if manifest.Key(c.tenantID, m.Version) != o.Key {
		return fmt.Errorf("%s holds version %d of tenant %s", o.Key, m.Version, m.Tenant)
	}
	c.versions = append(c.versions, m)
	return nil
}

// follows checks that a version adds to the one before, and keeps all of it.
func follows(before, next *manifest.Manifest) error {
	switch {
	case next.Version != before.Version+1:
		return fmt.Errorf("version %d follows version %d", next.Version, before.Version)
	case len(next.Blocks) <= len(before.Blocks):
		return fmt.Errorf("version %d adds no block", next.Version)
	}
	for _, b := range before.Blocks {
		kept, ok := next.Find(b.ULID)
		if !ok {
			return fmt.Errorf("version %d lost block %s", next.Version, b.ULID)
		}
		if kept.AddedVersion != b.AddedVersion || kept.MinTime != b.MinTime || kept.MaxTime != b.MaxTime {
			return fmt.Errorf("version %d says something else of block %s", next.Version, b.ULID)
		}
	}
	return nil
}
