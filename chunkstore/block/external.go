package block

import (
	"encoding/json"
	"fmt"
	"maps"
)

// shardLabel names the part of the series of a block that a splitting compactor has cut, such as 1_of_4.
const shardLabel = "__compactor_shard_id__"

// internalLabels are those that peers put into the section for themselves. They belong to no series.
var internalLabels = []string{"__org_id__", "__ingester_id__", "__shard_id__", shardLabel}

// externalLabels returns the labels that are to be added to each series, nil when there are none.
func (m *Meta) externalLabels() map[string]string {
	if m.Thanos == nil {
		return nil
	}
	external := maps.Clone(m.Thanos.Labels)
	for _, name := range internalLabels {
		delete(external, name)
	}
	if len(external) == 0 {
		return nil
	}
	return external
}

// TenantLabel returns the tenant that Cortex or Mimir wrote the block for, empty when the block does not say.
func (m *Meta) TenantLabel() string {
	if m.Thanos == nil {
		return ""
	}
	return m.Thanos.Labels["__org_id__"]
}

// shard names the part of its sources' series that the block holds, empty for all: by the label of Mimir, or by the
// partition of Cortex.
func (m *Meta) shard() string {
	if m.Thanos == nil {
		return ""
	}
	if s := m.Thanos.Labels[shardLabel]; s != "" {
		return s
	}
	partition := within(m.unknown, "thanos", "extensions", "partition_info")
	id, _ := partition["partition_id"].(json.Number)
	count, _ := partition["partition_count"].(json.Number)
	if id == "" || count == "" || count == "0" || count == "1" {
		return ""
	}
	return fmt.Sprintf("partition %s of %s", id, count)
}

// within returns the object at a path, nil when there is none.
func within(tree map[string]any, path ...string) map[string]any {
	for _, name := range path {
		tree, _ = tree[name].(map[string]any)
	}
	return tree
}

// Files returns the objects with a known size, and whether the list covers the index and all chunks. Old programs, and
// those that only write a local folder, list none.
func (m *Meta) Files() (files []File, complete bool) { return m.files() }
