package reconcile

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/tenantmark"
	"github.com/duramendb/duramen/internal/errkind"
)

// The names of peers' marks: in the folder of a block, and behind the block's ULID and a hyphen in the folder markers.
const (
	deletionMarkName  = "deletion-mark.json"
	noCompactMarkName = "no-compact-mark.json"
	markersFolder     = "markers"
)

// deletionMarkKeys returns where the marks of a block are: for all kinds of readers, and for those with a bucket index.
func deletionMarkKeys(tenantID string, id ulid.ULID) []string {
	return []string{block.Key(tenantID, id, deletionMarkName), globalMarkKey(tenantID, id, deletionMarkName)}
}

func globalMarkKey(tenantID string, id ulid.ULID, name string) string {
	return fmt.Sprintf("%s/%s/%s-%s", tenantID, markersFolder, id, name)
}

// listing is what a tenant has in the bucket, by one walk over its keys.
type listing struct {
	folders map[ulid.ULID]*folder
	// tenantMark is set when a peer has marked the tenant for deletion.
	tenantMark bool
	// isBlock is set when this is no tenant but a block at the top of the bucket.
	isBlock bool
	// index is the peers' index of blocks; its Key is empty when there is none.
	index bucket.Object
}

// folder is what lies in the folder of a block, and the marks of that block elsewhere.
type folder struct {
	files map[string]bucket.Object // by name, marks left out
	// newest is when the youngest of files was written, by the store's clock.
	newest time.Time
	// deletion and noCompact are the marks by key.
	deletion, noCompact map[string]bucket.Object
}

// meta reports whether the block has a meta.json, and its object.
func (f *folder) meta() (bucket.Object, bool) {
	o, ok := f.files[block.MetaName]
	return o, ok
}

// markedSince returns when the block was first marked for deletion, by the store's clock.
func (f *folder) markedSince() (since time.Time, marked bool) {
	for _, o := range f.deletion {
		if !marked || o.LastModified.Before(since) {
			since, marked = o.LastModified, true
		}
	}
	return since, marked
}

// segments returns how many files of chunks there are, and whether they are numbered from 1 without a gap.
func (f *folder) segments() (n int, whole bool) {
	highest := 0
	for name := range f.files {
		if i, ok := block.ParseSegmentName(name); ok {
			n, highest = n+1, max(highest, i)
		}
	}
	return n, n == highest
}

// dataBytes returns the size of the index and of all chunks.
func (f *folder) dataBytes() (sum int64) {
	for name, o := range f.files {
		if _, isSegment := block.ParseSegmentName(name); isSegment || name == block.IndexName {
			sum += o.Size
		}
	}
	return sum
}

// ownFolder reports whether a mark lies in the block's own folder.
func (f *folder) ownFolder() bool {
	for _, marks := range []map[string]bucket.Object{f.deletion, f.noCompact} {
		for key := range marks {
			if _, _, _, inside := block.ParseKey(key); inside {
				return true
			}
		}
	}
	return false
}

func list(ctx context.Context, bkt bucket.Bucket, tenantID string) (*listing, error) {
	l := &listing{folders: map[ulid.ULID]*folder{}}
	err := bkt.List(ctx, tenantID+"/", true, func(o bucket.Object) error {
		l.add(tenantID, o)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list objects of tenant %s: %w", tenantID, unavailable(err))
	}
	return l, nil
}

// listFolder lists one block, without its global marks.
func listFolder(ctx context.Context, bkt bucket.Bucket, tenantID string, id ulid.ULID) (*listing, error) {
	l := &listing{folders: map[ulid.ULID]*folder{}}
	err := bkt.List(ctx, block.Prefix(tenantID, id), true, func(o bucket.Object) error {
		l.add(tenantID, o)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list objects of block %s: %w", id, unavailable(err))
	}
	return l, nil
}

func (l *listing) add(tenantID string, o bucket.Object) {
	if _, id, name, ok := block.ParseKey(o.Key); ok {
		f := l.folder(id)
		switch name {
		case deletionMarkName:
			f.deletion[o.Key] = o
		case noCompactMarkName:
			f.noCompact[o.Key] = o
		default:
			f.files[name] = o
			if o.LastModified.After(f.newest) {
				f.newest = o.LastModified
			}
		}
		return
	}
	name := strings.TrimPrefix(o.Key, tenantID+"/")
	switch name {
	case indexName:
		l.index = o
	case block.MetaName:
		_, err := ulid.ParseStrict(tenantID)
		l.isBlock = err == nil
	}
	mark, ok := strings.CutPrefix(name, markersFolder+"/")
	if !ok {
		return
	}
	if mark == tenantmark.Name {
		l.tenantMark = true
		return
	}
	text, kind, _ := strings.Cut(mark, "-")
	id, err := ulid.ParseStrict(text)
	switch {
	case err != nil:
	case kind == deletionMarkName:
		l.folder(id).deletion[o.Key] = o
	case kind == noCompactMarkName:
		l.folder(id).noCompact[o.Key] = o
	}
}

func (l *listing) folder(id ulid.ULID) *folder {
	f := l.folders[id]
	if f == nil {
		f = &folder{
			files: map[string]bucket.Object{}, deletion: map[string]bucket.Object{}, noCompact: map[string]bucket.Object{},
		}
		l.folders[id] = f
	}
	return f
}

// unavailable gives an error of the bucket its kind, unless it has one.
func unavailable(err error) error {
	if err == nil || errkind.Of(err) != errkind.Internal {
		return err
	}
	return errkind.Wrap(errkind.Unavailable, err)
}
