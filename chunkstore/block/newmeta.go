package block

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"

	"github.com/prometheus/prometheus/tsdb"
)

// Description is what a meta.json says of a block that is written into the bucket.
type Description struct {
	// Stock is the part that Prometheus knows. Version may be 0.
	Stock tsdb.BlockMeta
	// Writer is stored as duramen.writer.
	Writer string
	// Labels are external labels, Shard the part of its sources' series that the block holds, as a manifest has them.
	Labels map[string]string
	Shard  string
	// Files are the block's objects with their sizes, without meta.json.
	Files []File
}

// NewMeta returns the meta.json of a block. It refuses a shard that peers would not know again.
func NewMeta(d Description) (*Meta, error) {
	m := &Meta{BlockMeta: d.Stock}
	m.Version = metaVersion
	m.Duramen = &Duramen{Writer: d.Writer, Version: duramenVersion}
	m.Thanos = &Thanos{
		Version: thanosVersion, Labels: maps.Clone(d.Labels), Source: sourceName,
		Files: append(append([]File(nil), d.Files...), File{Name: MetaName}),
	}
	if err := m.setShard(d.Shard); err != nil {
		return nil, err
	}
	return m, m.validate()
}

var (
	shardOfLabel     = regexp.MustCompile(`^[0-9]+_of_[0-9]+$`)
	shardOfPartition = regexp.MustCompile(`^partition ([0-9]+) of ([0-9]+)$`)
)

// setShard says in the words of the peer which part of its sources' series the block holds.
func (m *Meta) setShard(shard string) error {
	if shard == "" {
		return nil
	}
	if shardOfLabel.MatchString(shard) {
		if m.Thanos.Labels == nil {
			m.Thanos.Labels = map[string]string{}
		}
		m.Thanos.Labels[shardLabel] = shard
		return nil
	}
	if found := shardOfPartition.FindStringSubmatch(shard); found != nil {
		info := map[string]any{"partition_id": json.Number(found[1]), "partition_count": json.Number(found[2])}
		m.unknown = map[string]any{"thanos": map[string]any{"extensions": map[string]any{"partition_info": info}}}
		return nil
	}
	return fmt.Errorf("shard %q is none that is known", shard)
}
