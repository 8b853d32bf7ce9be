package blockgen

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/index"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// writerName is duramen.writer of the blocks made here.
const writerName = "blockgen"

// sidecarName is the object that package index writes.
const sidecarName = "duramen.idx"

// DefaultSegmentBytes is how large the files of chunks of Prometheus become.
const DefaultSegmentBytes = chunks.DefaultChunkSegmentSize

// Chunk is an encoded chunk.
type Chunk struct {
	// MinTime and MaxTime are the times of the first and last sample.
	MinTime, MaxTime int64
	Encoding         chunkenc.Encoding
	// Data is what chunkenc.Chunk.Bytes returns.
	Data    []byte
	Samples int
}

// Series is a series of a block. Its chunks are in order of time and do not overlap.
type Series struct {
	Labels labels.Labels
	Chunks []Chunk
}

// Options say what a block is apart from its series.
type Options struct {
	ULID ulid.ULID
	// MinTime and MaxTime are the block's range in milliseconds, half-open.
	MinTime, MaxTime int64
	// Sidecar adds the object duramen.idx.
	Sidecar bool
	// SegmentBytes bounds a file of chunks; 0 means DefaultSegmentBytes.
	SegmentBytes int64
	// Level is the compaction level, 0 means 1. OutOfOrder marks a block as cut from out-of-order samples.
	Level      int
	OutOfOrder bool
	// Unordered lets the chunks of a series overlap and come in any order, as no sound writer leaves them.
	Unordered bool
	// Scatter, when not 0, is the seed of the order in which chunks lie in their files; else it is that of the series.
	Scatter uint64
	// Foreign leaves out what Duramen and Thanos add to meta.json, as if Prometheus had written the block.
	Foreign bool
}

// File is one object of a block.
type File struct {
	// Name is relative to the block, such as chunks/000001.
	Name string
	Data []byte
}

// Block is a block with all its bytes.
type Block struct {
	// Entry is the block as a manifest lists it, with AddedAt and AddedVersion left open.
	Entry manifest.Block
	// Files are its objects in the order of an upload, meta.json last.
	Files []File
}

// ULID returns a ULID of that time, in milliseconds, whose other bits come from the seed.
func ULID(ms int64, seed uint64) ulid.ULID {
	var entropy [16]byte
	r := rand.New(rand.NewPCG(seed, uint64(ms)))
	binary.LittleEndian.PutUint64(entropy[:8], r.Uint64())
	binary.LittleEndian.PutUint64(entropy[8:], r.Uint64())
	return ulid.MustNew(uint64(ms), bytes.NewReader(entropy[:]))
}

// Build makes a block of series, which are in label order.
func Build(o Options, series []Series) (*Block, error) {
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	segments, places := layOut(o.SegmentBytes, series, o.Scatter)
	ix, err := encodeIndex(series, places, o.Unordered)
	if err != nil {
		return nil, fmt.Errorf("make block %s: %w", o.ULID, err)
	}
	b := &Block{}
	for i, data := range segments {
		b.Files = append(b.Files, File{block.SegmentName(i + 1), data})
	}
	b.Files = append(b.Files, File{block.IndexName, ix})
	meta := o.meta(series)
	if !o.Foreign {
		meta.Duramen = &block.Duramen{Writer: writerName, Version: 1}
		meta.Thanos = &block.Thanos{Version: 1, Source: "duramen", Files: files(b.Files)}
	}
	var size, directory int64
	if o.Sidecar {
		if size, directory, err = b.addSidecar(o, series, segments, places); err != nil {
			return nil, fmt.Errorf("make block %s: %w", o.ULID, err)
		}
	}
	data, err := meta.Marshal()
	if err != nil {
		return nil, err
	}
	b.Files = append(b.Files, File{block.MetaName, data})
	b.Entry = meta.ManifestBlock(int64(len(data)))
	b.Entry.SidecarBytes, b.Entry.DirectoryBytes = size, directory
	return b, nil
}

func files(in []File) (out []block.File) {
	for _, f := range in {
		out = append(out, block.File{Name: f.Name, SizeBytes: int64(len(f.Data))})
	}
	return append(out, block.File{Name: block.MetaName})
}

func (o Options) meta(series []Series) *block.Meta {
	m := &block.Meta{BlockMeta: tsdb.BlockMeta{ULID: o.ULID, MinTime: o.MinTime, MaxTime: o.MaxTime, Version: 1}}
	m.Compaction.Level = max(1, o.Level)
	m.Compaction.Sources = []ulid.ULID{o.ULID}
	if o.OutOfOrder {
		m.Compaction.SetOutOfOrder()
	}
	m.Stats.NumSeries = uint64(len(series))
	for _, s := range series {
		m.Stats.NumChunks += uint64(len(s.Chunks))
		for _, c := range s.Chunks {
			m.Stats.NumSamples += uint64(c.Samples)
			if c.Encoding == chunkenc.EncXOR {
				m.Stats.NumFloatSamples += uint64(c.Samples)
			} else {
				m.Stats.NumHistogramSamples += uint64(c.Samples)
			}
		}
	}
	return m
}

// addSidecar returns the size of the sidecar and of the directory at its end.
func (b *Block) addSidecar(
	o Options, series []Series, segments [][]byte, places [][]place,
) (size, directory int64, err error) {
	sizes := make([]int64, len(segments))
	for i, s := range segments {
		sizes[i] = int64(len(s))
	}
	var out bytes.Buffer
	ib, err := index.NewBuilder(&out, o.MinTime, o.MaxTime, sizes)
	if err != nil {
		return 0, 0, err
	}
	var cs []index.Chunk
	for i, s := range series {
		cs = cs[:0]
		for j, c := range s.Chunks {
			p := places[i][j]
			cs = append(cs, index.Chunk{
				MinTime: c.MinTime, MaxTime: c.MaxTime, Segment: p.segment, Offset: p.offset, Length: p.length,
			})
		}
		if err := ib.Add(s.Labels, cs); err != nil {
			return 0, 0, err
		}
	}
	if size, directory, err = ib.Finish(); err != nil {
		return 0, 0, err
	}
	b.Files = append(b.Files, File{sidecarName, out.Bytes()})
	return size, directory, nil
}

// place is where a chunk's record lies.
type place struct{ segment, offset, length uint32 }

// layOut writes the files of chunks: a header of 8 bytes, then of each chunk its length, encoding, data and checksum.
func layOut(segmentBytes int64, series []Series, scatter uint64) (segments [][]byte, places [][]place) {
	const header = "\x85\xbd\x40\xdd\x01\x00\x00\x00"
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	total, n := int64(0), 0
	for _, s := range series {
		n += len(s.Chunks)
		for _, c := range s.Chunks {
			total += int64(len(c.Data)) + 10
		}
	}
	places, all, order := make([][]place, len(series)), make([]place, n), make([]*Chunk, 0, n)
	for i, s := range series {
		places[i] = all[len(order) : len(order)+len(s.Chunks)]
		for j := range s.Chunks {
			order = append(order, &s.Chunks[j])
		}
	}
	var out []byte
	for _, k := range turns(n, scatter) {
		c := order[k]
		if out == nil || int64(len(out)+len(c.Data)+10) > segmentBytes && len(out) > len(header) {
			if out != nil {
				segments = append(segments, out)
			}
			out = append(make([]byte, 0, min(total+8, segmentBytes)), header...)
		}
		begin := len(out)
		out = binary.AppendUvarint(out, uint64(len(c.Data)))
		summed := len(out)
		out = append(out, byte(c.Encoding))
		out = append(out, c.Data...)
		out = binary.BigEndian.AppendUint32(out, crc32.Checksum(out[summed:], castagnoli))
		all[k] = place{uint32(len(segments)), uint32(begin), uint32(len(out) - begin)}
		total -= int64(len(out) - begin)
	}
	if out != nil {
		segments = append(segments, out)
	}
	return segments, places
}

// turns returns the numbers below n, in order or, with a seed, in a random one.
func turns(n int, seed uint64) []int {
	if seed != 0 {
		return rand.New(rand.NewPCG(seed, 0)).Perm(n)
	}
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// Put writes the block's objects, meta.json last.
func (b *Block) Put(ctx context.Context, bkt bucket.Bucket, tenant string) error {
	for _, f := range b.Files {
		key := block.Key(tenant, b.Entry.ULID, f.Name)
		if err := bkt.Put(ctx, key, bytes.NewReader(f.Data), int64(len(f.Data))); err != nil {
			return fmt.Errorf("put %s: %w", key, err)
		}
	}
	return nil
}

// WriteDir writes the block into a folder of its own in dir and returns that folder's name. Below the folder of a
// filesystem bucket, with dir named by the tenant, that is the same as Put, without the fsyncs.
func (b *Block) WriteDir(dir string) (string, error) {
	dir = filepath.Join(dir, b.Entry.ULID.String())
	for _, f := range b.Files {
		name := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			return "", err
		}
		if err := os.WriteFile(name, f.Data, 0o666); err != nil {
			return "", err
		}
	}
	return dir, os.MkdirAll(filepath.Join(dir, "chunks"), 0o777) // a block without chunks has the folder, too
}
