package reconcile

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

const (
	// indexName is the peers' index of a tenant's blocks.
	indexName = "bucket-index.json.gz"

	bucketIndexVersion = 1
	// segmentsFormat says that files of chunks are numbered from 1 with six digits.
	segmentsFormat = "1b6d"

	// indexRefresh is how old an index may become. By default peers take one that is older than an hour for broken.
	indexRefresh = 20 * time.Minute

	// idleAfter is after how long without new blocks a tenant's index is refreshed less often.
	idleAfter = 24 * time.Hour

	// maxIndexBytes bounds what is read of an index, unpacked.
	maxIndexBytes = 256 << 20
)

// bucketIndex is the index as Cortex and Mimir read it. Times beside the blocks' ranges are in seconds since the Unix
// epoch.
type bucketIndex struct {
	Version       int          `json:"version"`
	Blocks        []indexBlock `json:"blocks"`
	DeletionMarks []indexMark  `json:"block_deletion_marks"`
	UpdatedAt     int64        `json:"updated_at"`
}

type indexBlock struct {
	ID             ulid.ULID `json:"block_id"`
	MinTime        int64     `json:"min_time"`
	MaxTime        int64     `json:"max_time"`
	SegmentsFormat string    `json:"segments_format,omitempty"`
	SegmentsNum    int       `json:"segments_num,omitempty"`
	UploadedAt     int64     `json:"uploaded_at"`
}

type indexMark struct {
	ID           ulid.ULID `json:"block_id"`
	DeletionTime int64     `json:"deletion_time"`
}

// makeIndex describes a manifest. segments are the numbers of files of chunks by block; 0 is one that is not known, and
// makes the peers list the block.
func makeIndex(m *manifest.Manifest, segments map[ulid.ULID]int, now time.Time) *bucketIndex {
	x := &bucketIndex{
		Version: bucketIndexVersion, Blocks: []indexBlock{}, DeletionMarks: []indexMark{}, UpdatedAt: now.Unix(),
	}
	for i := range m.Blocks {
		b := &m.Blocks[i]
		entry := indexBlock{ID: b.ULID, MinTime: b.MinTime, MaxTime: b.MaxTime, UploadedAt: b.AddedAt / 1000}
		if n := segments[b.ULID]; n > 0 {
			entry.SegmentsFormat, entry.SegmentsNum = segmentsFormat, n
		}
		x.Blocks = append(x.Blocks, entry)
	}
	for _, r := range m.Removed {
		x.DeletionMarks = append(x.DeletionMarks, indexMark{ID: r.ULID, DeletionTime: r.RemovedAt / 1000})
	}
	return x
}

func (x *bucketIndex) encode() ([]byte, error) {
	data, err := json.Marshal(x)
	if err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Name = "bucket-index.json"
	_, err = z.Write(data)
	if err := errors.Join(err, z.Close()); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}

func decodeIndex(packed io.Reader) (*bucketIndex, error) {
	z, err := gzip.NewReader(packed)
	if err != nil {
		return nil, err
	}
	var x bucketIndex
	err = json.NewDecoder(io.LimitReader(z, maxIndexBytes)).Decode(&x)
	return &x, errors.Join(err, z.Close())
}

// peerIndex keeps one tenant's index current. One goroutine at a time uses it.
type peerIndex struct {
	tenant   string
	segments map[ulid.ULID]int
	// version is what was written last, and when; 0 when nothing was by this process.
	version uint64
	written time.Time
}

// learn takes the numbers of files from a listing.
func (x *peerIndex) learn(l *listing) {
	x.segments = make(map[ulid.ULID]int, len(l.folders))
	for id, f := range l.folders {
		if n, whole := f.segments(); whole {
			x.segments[id] = n
		}
	}
}

// due reports whether the index has to be written: it is behind the manifest, or so old. After a day without new blocks
// idle is what counts for old.
func (x *peerIndex) due(m *manifest.Manifest, now time.Time, idle time.Duration) bool {
	if m.Version == 0 || m.Doomed != nil && len(m.Blocks) == 0 {
		return false // a tenant that is deleted keeps its receipt alone
	}
	refresh := indexRefresh
	if now.Sub(time.UnixMilli(m.LastGrowth())) >= idleAfter {
		refresh = max(indexRefresh, idle)
	}
	return x.version != m.Version || now.Sub(x.written) >= refresh
}

// write puts the index of m into the bucket.
func (x *peerIndex) write(ctx context.Context, bkt bucket.Bucket, m *manifest.Manifest, now time.Time) error {
	if err := x.complete(ctx, bkt, m); err != nil {
		return err
	}
	data, err := makeIndex(m, x.segments, now).encode()
	if err == nil {
		err = unavailable(bkt.Put(ctx, x.tenant+"/"+indexName, bytes.NewReader(data), int64(len(data))))
	}
	if err != nil {
		return fmt.Errorf("write %s of tenant %s: %w", indexName, x.tenant, err)
	}
	x.version, x.written = m.Version, now
	return nil
}

// complete finds out how many files of chunks the blocks have that no pass has seen: from the index as it is, and by
// looking.
func (x *peerIndex) complete(ctx context.Context, bkt bucket.Bucket, m *manifest.Manifest) error {
	if x.segments == nil {
		x.segments = readSegments(ctx, bkt, x.tenant)
	}
	current := make(map[ulid.ULID]int, len(m.Blocks))
	for i := range m.Blocks {
		id := m.Blocks[i].ULID
		n, known := x.segments[id]
		if !known {
			l, err := listFolder(ctx, bkt, x.tenant, id)
			if err != nil {
				return err
			}
			if f := l.folders[id]; f != nil {
				n, _ = f.segments()
			}
		}
		current[id] = n
	}
	x.segments = current
	return nil
}

// readSegments takes from the index in the bucket what it says of blocks. An index that cannot be read says nothing.
func readSegments(ctx context.Context, bkt bucket.Bucket, tenantID string) map[ulid.ULID]int {
	segments := map[ulid.ULID]int{}
	body, err := bkt.Get(ctx, tenantID+"/"+indexName)
	if err != nil {
		return segments
	}
	old, err := decodeIndex(body)
	if err := errors.Join(err, body.Close()); err != nil {
		return segments
	}
	for _, b := range old.Blocks {
		if b.SegmentsFormat == segmentsFormat && b.SegmentsNum > 0 {
			segments[b.ID] = b.SegmentsNum
		}
	}
	return segments
}
