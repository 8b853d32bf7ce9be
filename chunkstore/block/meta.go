package block

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

const (
	metaVersion    = 1 // of the stock part
	duramenVersion = 1
	thanosVersion  = 1

	// sourceName is what thanos.source says of blocks written here.
	sourceName = "duramen"

	// MaxMetaBytes bounds what is read for a meta.json. The largest real ones list some ten thousand parents.
	MaxMetaBytes = 64 << 20
)

// Meta is a meta.json: the stock part, our section, and the section that readers of Thanos, Cortex and Mimir expect.
// Fields of other programs survive reading and writing.
type Meta struct {
	tsdb.BlockMeta

	// Duramen is nil in a block that another program has written.
	Duramen *Duramen `json:"duramen,omitempty"`
	// Thanos is nil in a block as the TSDB leaves it on disk.
	Thanos *Thanos `json:"thanos,omitempty"`

	unknown map[string]any // what the file holds beyond the fields above, at any depth
}

// Duramen is our own section.
type Duramen struct {
	// Writer is who wrote the block: the instance of an ingester or compactor.
	Writer string `json:"writer"`
	// Version is that of this section.
	Version int `json:"version"`
}

// Thanos is the section that Thanos invented and the others took over.
type Thanos struct {
	Version    int               `json:"version"`
	Labels     map[string]string `json:"labels"`
	Downsample Downsample        `json:"downsample"`
	Source     string            `json:"source"`
	// Files are the block's objects with their sizes, chunks first, meta.json last and without a size.
	Files []File `json:"files,omitempty"`
}

// Downsample says how far the samples are thinned out: Resolution is in milliseconds, 0 means not at all.
type Downsample struct {
	Resolution int64 `json:"resolution"`
}

// File is one object of a block.
type File struct {
	// Name is relative to the block's folder and has slashes on every system.
	Name string `json:"rel_path"`
	// SizeBytes is 0 where it is unknown, as for meta.json itself.
	SizeBytes int64 `json:"size_bytes,omitempty"`
	// Hash is kept for others; it is not checked here.
	Hash json.RawMessage `json:"hash,omitempty"`
}

// ReadMeta reads the meta.json in the folder of a block. ErrNoMeta means that there is none.
func ReadMeta(dir string) (*Meta, error) {
	m, err := readMetaFile(filepath.Join(dir, MetaName))
	if err != nil {
		return nil, fmt.Errorf("read meta of block %s: %w", filepath.Base(dir), err)
	}
	return m, nil
}

func readMetaFile(name string) (*Meta, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNoMeta, err)
	}
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxMetaBytes+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return ParseMeta(data)
}

// ParseMeta decodes a meta.json. It refuses one without a ULID, with a negative time range, or of a version that it
// does not know; such an error is of kind Corrupt.
func ParseMeta(data []byte) (*Meta, error) {
	if len(data) > MaxMetaBytes {
		return nil, errkind.New(errkind.Corrupt, "meta.json has more than %d bytes", MaxMetaBytes)
	}
	var m Meta
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, errkind.New(errkind.Corrupt, "parse meta.json: %w", err)
	}
	if err := m.validate(); err != nil {
		return nil, errkind.New(errkind.Corrupt, "meta.json: %w", err)
	}
	unknown, err := beyond(data, &m)
	if err != nil {
		return nil, errkind.New(errkind.Corrupt, "parse meta.json: %w", err)
	}
	m.unknown = unknown
	return &m, nil
}

func (m *Meta) validate() error {
	switch {
	case m.Version != metaVersion:
		return fmt.Errorf("version is %d; %d is known", m.Version, metaVersion)
	case m.ULID == ulid.ULID{}:
		return errors.New("it has no ULID")
	case m.MinTime > m.MaxTime:
		return fmt.Errorf("minTime %d is above maxTime %d", m.MinTime, m.MaxTime)
	case m.Compaction.Level < 0:
		return fmt.Errorf("compaction level is %d", m.Compaction.Level)
	}
	if m.Thanos == nil {
		return nil
	}
	for _, f := range m.Thanos.Files {
		if f.Name == "" || !filepath.IsLocal(f.Name) || f.SizeBytes < 0 {
			return fmt.Errorf("file %q of %d bytes", f.Name, f.SizeBytes)
		}
	}
	return nil
}

// Marshal encodes the meta.json. Equal metas give equal bytes.
func (m *Meta) Marshal() ([]byte, error) {
	known, err := tree(m.encodable())
	if err != nil {
		return nil, fmt.Errorf("encode meta.json: %w", err)
	}
	if len(m.unknown) == 0 {
		return marshalIndented(m.encodable()) // in the order of the fields, as people expect it
	}
	return marshalIndented(merge(known, m.unknown))
}

// encodable returns m as json shall see it, with empty instead of null where peers would stumble.
func (m *Meta) encodable() *Meta {
	if m.Thanos == nil || m.Thanos.Labels != nil {
		return m
	}
	c, section := *m, *m.Thanos
	section.Labels = map[string]string{}
	c.Thanos = &section
	return &c
}

func marshalIndented(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "\t")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode meta.json: %w", err)
	}
	return b.Bytes(), nil
}

// files returns the objects with a known size, and whether the list covers the index and all chunks.
func (m *Meta) files() (files []File, complete bool) {
	if m.Thanos == nil {
		return nil, false
	}
	index, segments := false, 0
	for _, f := range m.Thanos.Files {
		if f.Name == MetaName || f.SizeBytes == 0 {
			continue
		}
		files = append(files, f)
		index = index || f.Name == IndexName
		if _, ok := ParseSegmentName(f.Name); ok {
			segments++
		}
	}
	return files, index && (segments > 0 || m.Stats.NumChunks == 0)
}

// segments returns the sizes of the chunk files that are listed, in their order, nil when there is no list.
func (m *Meta) segments() Segments {
	files, _ := m.files()
	var s Segments
	for _, f := range files {
		if n, ok := ParseSegmentName(f.Name); ok && n == len(s)+1 {
			s = append(s, f.SizeBytes)
		}
	}
	return s
}

// describesSame reports whether both say the same of the block's samples. A meta.json has no checksum, and what a manifest
// says of a block decides which queries read it.
func (m *Meta) describesSame(other *Meta) bool {
	a, b := &m.BlockMeta, &other.BlockMeta
	return a.ULID == b.ULID && a.MinTime == b.MinTime && a.MaxTime == b.MaxTime && a.Stats == b.Stats &&
		a.Compaction.Level == b.Compaction.Level && slices.Equal(a.Compaction.Sources, b.Compaction.Sources) &&
		a.Compaction.FromOutOfOrder() == b.Compaction.FromOutOfOrder()
}

// ManifestBlock returns what a manifest has to know of the block; metaBytes is the size of meta.json.
func (m *Meta) ManifestBlock(metaBytes int64) manifest.Block {
	b := manifest.Block{
		ULID:       m.ULID,
		MinTime:    m.MinTime,
		MaxTime:    m.MaxTime,
		Level:      max(1, m.Compaction.Level),
		Sources:    m.Compaction.Sources,
		Series:     m.Stats.NumSeries,
		Samples:    m.Stats.NumSamples,
		Chunks:     m.Stats.NumChunks,
		SizeBytes:  metaBytes,
		OutOfOrder: m.Compaction.FromOutOfOrder(),
		Labels:     m.externalLabels(),
		Shard:      m.shard(),
	}
	if len(b.Sources) == 0 {
		b.Sources = []ulid.ULID{m.ULID}
	}
	files, _ := m.files()
	for _, f := range files {
		b.SizeBytes += f.SizeBytes
		if f.Name == IndexName {
			b.IndexBytes = f.SizeBytes
		}
	}
	if m.Duramen != nil {
		b.Writer = m.Duramen.Writer
	}
	return b
}
