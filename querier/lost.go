package querier

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// warnings are what a query with this plan is told.
func (p *plan) warnings() annotations.Annotations {
	out := lostWarnings(p.lost)
	if p.doubt != nil {
		out.Add(p.doubt)
	}
	return out
}

// errUnknown is the warning of a query that was answered by ingesters alone, since the start of this process.
var errUnknown = errors.New("samples that were deleted may be shown: the bucket, which knows of deletions, could not be asked " +
	"since this process began")

// lostWarnings are what a query is told that touches times of which samples are known to be lost.
func lostWarnings(ranges []manifest.LostRange) annotations.Annotations {
	var out annotations.Annotations
	for _, r := range ranges {
		out.Add(fmt.Errorf("samples from %s to %s may be missing: they were lost: %s",
			instant(r.MinTime), instant(r.MaxTime), r.Reason))
	}
	return out
}

// warnedSeries adds warnings to a set.
type warnedSeries struct {
	storage.SeriesSet
	warnings annotations.Annotations
}

// Warnings implements storage.SeriesSet.
func (s warnedSeries) Warnings() annotations.Annotations {
	return withWarnings(s.SeriesSet.Warnings(), s.warnings)
}

// warnedChunks is warnedSeries for chunks.
type warnedChunks struct {
	storage.ChunkSeriesSet
	warnings annotations.Annotations
}

// Warnings implements storage.ChunkSeriesSet.
func (s warnedChunks) Warnings() annotations.Annotations {
	return withWarnings(s.ChunkSeriesSet.Warnings(), s.warnings)
}

// withWarnings returns the union in a map of its own.
func withWarnings(a, b annotations.Annotations) annotations.Annotations {
	var out annotations.Annotations
	out.Merge(a)
	return out.Merge(b)
}
