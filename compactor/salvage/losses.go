package salvage

import (
	"cmp"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// maxLostChunks bounds what is kept of lost chunks, to look for them elsewhere and to name them.
const maxLostChunks = 1 << 20

// lostChunk is a chunk of a known place that cannot be read.
type lostChunk struct {
	chunkPlace
	remains

	covered bool
}

// lostSeries is a series with chunks that cannot be read. The labels are empty when they cannot be proven.
type lostSeries struct {
	lset   labels.Labels
	chunks []lostChunk
	whole  bool // nothing of the series can be read
	// elsewhere is set instead when a chunk of such a series was found in another block.
	elsewhere bool
}

// losses are what is lost, as it is found.
type losses struct {
	series []lostSeries // in label order, those without labels last
	chunks int          // in series
	beyond uint64       // chunks above maxLostChunks, of which only the range is kept
	// seriesBeyond are the series of such chunks of which nothing can be read.
	seriesBeyond uint64
	ranges       []Range
	orphans      Count // intact chunks whose series are lost
}

func (l *losses) add(s lostSeries) {
	if l.chunks+len(s.chunks) > maxLostChunks {
		l.beyond += uint64(len(s.chunks))
		if s.whole {
			l.seriesBeyond++
		}
		for _, c := range s.chunks {
			l.note(c.mint, c.maxt)
		}
		return
	}
	l.chunks += len(s.chunks)
	l.series = append(l.series, s)
}

// note adds the times of a lost chunk, both inclusive.
func (l *losses) note(mint, maxt int64) {
	l.ranges = append(l.ranges, Range{mint, maxt + 1})
	if len(l.ranges) > 100*maxRanges {
		l.ranges = merged(l.ranges, 10*maxRanges)
	}
}

// count returns how many series have lost all, and how many chunks are lost, found elsewhere or not. Those of orphans are not
// counted.
func (l *losses) count() Count {
	c := Count{Series: l.seriesBeyond, Chunks: uint64(l.chunks) + l.beyond} //nolint:gosec // a count
	for i := range l.series {
		// Of one that cover has found in part, nothing can be read here either.
		if s := &l.series[i]; s.whole || s.elsewhere {
			c.Series++
		}
	}
	return c
}

// conclude counts and writes what is lost into the report. block says what there was; read is what the new block holds of
// chunks and samples as they were read, covered what others hold.
func (l *losses) conclude(r *Report, block *manifest.Block, read, covered Count) {
	r.Covered = covered
	for i := range l.series {
		l.name(r, &l.series[i])
	}
	slices.SortStableFunc(r.LostSeries, func(a, b LostSeries) int {
		return cmp.Or(cmp.Compare(boolInt(a.Series == ""), boolInt(b.Series == "")), cmp.Compare(a.MinTime, b.MinTime))
	})
	r.Lost.Chunks += l.beyond + l.orphans.Chunks
	r.SamplesExact = block.Samples > 0 && read.Samples+covered.Samples+l.orphans.Samples <= block.Samples
	if block.Chunks > 0 {
		all := read.Chunks + covered.Chunks + r.Lost.Chunks
		if all < block.Chunks { // nothing is known of some
			r.Lost.Chunks += block.Chunks - all
			l.note(block.MinTime, block.MaxTime-1)
		}
		r.SamplesExact = r.SamplesExact && all <= block.Chunks
	} else if block.Samples == 0 {
		l.note(block.MinTime, block.MaxTime-1)
	}
	if r.SamplesExact {
		r.Lost.Samples = block.Samples - read.Samples - covered.Samples
	} else {
		r.Lost.Samples = l.orphans.Samples
	}
	if kept := read.Series + covered.Series; block.Series > kept {
		r.Lost.Series = block.Series - kept
	}
	r.Lossless = r.Lost == Count{} && (r.SamplesExact || block.Samples == 0 && len(r.Files) == 0)
	if !r.Lossless && len(l.ranges) == 0 {
		l.note(block.MinTime, block.MaxTime-1)
	}
	r.Ranges = nil
	if !r.Lossless {
		for _, x := range merged(l.ranges, maxRanges) {
			x.MinTime, x.MaxTime = max(x.MinTime, block.MinTime), min(x.MaxTime, block.MaxTime)
			if x.MinTime < x.MaxTime {
				r.Ranges = append(r.Ranges, x)
			}
		}
	}
}

// name adds one series to the report.
func (l *losses) name(r *Report, s *lostSeries) {
	lost := LostSeries{Whole: s.whole}
	if !s.lset.IsEmpty() {
		lost.Series = shown(s.lset)
	}
	for _, c := range s.chunks {
		if c.covered {
			continue
		}
		if lost.Chunks == 0 {
			lost.MinTime, lost.MaxTime = c.mint, c.maxt+1
		}
		lost.Chunks++
		lost.MinTime, lost.MaxTime = min(lost.MinTime, c.mint), max(lost.MaxTime, c.maxt+1)
		l.note(c.mint, c.maxt)
	}
	if lost.Chunks == 0 {
		return
	}
	r.Lost.Chunks += lost.Chunks
	if len(r.LostSeries) >= maxNamed {
		r.Unnamed++
		return
	}
	r.LostSeries = append(r.LostSeries, lost)
}

// maxShown is how much of a series' labels is shown.
const maxShown = 500

func shown(lset labels.Labels) string {
	text := lset.String()
	if len(text) > maxShown {
		return text[:maxShown] + "…"
	}
	return text
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
