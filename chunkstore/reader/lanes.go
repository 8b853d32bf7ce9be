package reader

import (
	"cmp"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// follow reports whether each chunk begins behind the end of the one before, as those of a series in a block do that
// Prometheus or Duramen wrote. Blocks of others, or of old versions, may differ.
func follow(metas []chunks.Meta) bool {
	for i := 1; i < len(metas); i++ {
		if metas[i].MinTime <= metas[i-1].MaxTime {
			return false
		}
	}
	return true
}

// lanes divides chunks of one series, in any order, into as few series as possible of chunks that follow one another.
func lanes(metas []chunks.Meta) []storage.ChunkSeries {
	sorted := slices.Clone(metas)
	slices.SortStableFunc(sorted, func(a, b chunks.Meta) int { return cmp.Compare(a.MinTime, b.MinTime) })
	var lists [][]chunks.Meta
	for _, m := range sorted {
		m.Chunk = guard(m.Chunk)
		i := slices.IndexFunc(lists, func(list []chunks.Meta) bool { return list[len(list)-1].MaxTime < m.MinTime })
		if i < 0 {
			i, lists = len(lists), append(lists, nil)
		}
		lists[i] = append(lists[i], m)
	}
	out := make([]storage.ChunkSeries, len(lists))
	for i, list := range lists {
		out[i] = &storage.ChunkSeriesEntry{
			Lset:            labels.EmptyLabels(),
			ChunkIteratorFn: func(chunks.Iterator) chunks.Iterator { return storage.NewListChunkSeriesIterator(list...) },
		}
	}
	return out
}
