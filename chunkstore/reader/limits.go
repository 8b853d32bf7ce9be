package reader

import (
	"github.com/duramendb/duramen/internal/errkind"
)

// The names of the limits, as an operator sets them.
const (
	seriesLimit = "max_fetched_series_per_query"
	bytesLimit  = "max_fetched_chunk_bytes_per_query"
)

// fetchLimits are the limits of one query's tenant; 0 is none.
type fetchLimits struct {
	l      *Local
	tenant string
	series int64
	bytes  int64
}

func (l *Local) limitsOf(tenant string) fetchLimits {
	return fetchLimits{
		l: l, tenant: tenant,
		series: int64(l.limits.MaxFetchedSeriesPerQuery(tenant)), bytes: l.limits.MaxFetchedChunkBytesPerQuery(tenant),
	}
}

// check refuses a query that reads at least so many distinct series and bytes of chunks.
func (f fetchLimits) check(series, bytes int64) error {
	if f.series > 0 && series > f.series {
		return f.refuse(seriesLimit, "the query reads at least %d series, and the limit of tenant %s is %d (%s): "+
			"ask for fewer series or a shorter range", series, f.tenant, f.series, seriesLimit)
	}
	if f.bytes > 0 && bytes > f.bytes {
		return f.refuse(bytesLimit, "the query reads at least %d bytes of chunks of blocks, and the limit of tenant %s is %d "+
			"(%s): ask for fewer series or a shorter range", bytes, f.tenant, f.bytes, bytesLimit)
	}
	return nil
}

func (f fetchLimits) refuse(limit, format string, args ...any) error {
	f.l.metrics.refused.WithLabelValues(limit).Inc()
	return errkind.New(errkind.Unprocessable, format, args...)
}

// checkEstimate refuses a query of which directories alone say that it is too large: matchers on the name take all series
// of the pages, and a page whose times lie within the range gives all its chunks.
func (sel *selection) checkEstimate() error {
	if sel.hints.ShardCount > 0 || sel.hints.Limit > 0 {
		return nil
	}
	most, bytes := int64(0), sel.s.chunkBytes.Load()
	for _, b := range sel.blocks {
		if !nameOnly(b.matchers) {
			continue
		}
		series := int64(0)
		for _, number := range b.candidates {
			e := b.pages.dir.Page(number)
			if sel.mint <= e.MinTime && e.MaxTime <= sel.maxt {
				series += int64(e.Series)
				if sel.readsChunks() {
					bytes += e.ChunkBytes
				}
			}
		}
		most = max(most, series)
	}
	return sel.limits.check(most, bytes)
}

// found counts what was found and refuses what is too much.
func (b *blockSelection) found(series int, bytes int64) error {
	if !b.sel.readsChunks() {
		bytes = 0
	}
	b.bytes += bytes
	return b.sel.limits.check(int64(b.count+series), b.sel.s.chunkBytes.Add(bytes))
}

// keep counts memory that stays for as long as the selection does. It refuses what would not leave half of the share.
func (sel *selection) keep(n int64) error {
	if kept := sel.kept.Add(n); kept > sel.share.got/2 {
		sel.limits.l.metrics.refused.WithLabelValues("query_share").Inc()
		return errkind.New(errkind.Unprocessable, "the query needs more than %d bytes to remember its series, and may hold %d "+
			"(chunkstore.memory.query_share): ask for fewer series or a shorter range", kept, sel.share.got)
	}
	return nil
}

// readsChunks reports whether the series' chunks are wanted, and not only that they are there.
func (sel *selection) readsChunks() bool { return sel.hints.Func != "series" }
