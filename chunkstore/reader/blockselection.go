package reader

import (
	"context"
	"errors"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/chunkstore/index"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

const (
	// speculateBytes is how much of a block's chunks is read together with its pages, to save a round trip.
	speculateBytes = 4 << 20
	// guessBytes is what is reserved for a block's chunks when only its pages say how many of them are wanted.
	guessBytes = 256 << 10
	// guessLabelBytes is what the labels of a series are taken for before they are known.
	guessLabelBytes = 200
	// pickedPageBytes and sortedBytes are what a page with matching series and a series that has to be sorted take.
	pickedPageBytes = 64
	sortedBytes     = 64
	// refBytes is what a chunk takes in memory besides its bytes.
	refBytes = 40
)

// blockSelection is the part of a selection that is one block's.
type blockSelection struct {
	sel      *selection
	block    *manifest.Block
	external external
	matchers []*labels.Matcher // on the block's own labels
	pages    blockPages

	candidates []int // pages
	// unordered is set when the pages, one after another, may not be in label order: external labels can change it, and
	// a label that sorts before the name of the metric makes metrics alternate.
	unordered bool
	picked    []pickedPage
	count     int   // series
	bytes     int64 // of chunks
	kept      int64 // memory that is needed until the end
	cost      int64 // memory that all their chunks take at once
	// sorted are the series by label order when the pages do not have it, and order their ordinals; nil otherwise.
	sorted []sortedSeries
	order  []int

	windows windows
}

// pickedPage is a page with series that match.
type pickedPage struct {
	number int
	page   *index.Page // nil when there is no room to keep it
	first  int         // ordinal of its first series
	series []uint16    // positions in the page
}

// sortedSeries is a series by its labels; several ordinals are series that external labels made equal.
type sortedSeries struct {
	lset     labels.Labels
	ordinals []int
}

func (b *blockSelection) findCandidates() (err error) {
	defer func() {
		if err != nil {
			err = b.pages.explain(err)
		}
	}()
	defer recovered(&err)
	dir := b.pages.dir
	b.candidates, err = dir.Candidates(b.pages.l.dec, b.sel.mint, b.sel.maxt, b.matchers...)
	b.pages.measureDirectory()
	b.windows.b = b
	if err != nil {
		return err
	}
	b.unordered = len(b.external) > 0 || !dir.Ordered && !b.oneMetric()
	// The query keeps what it knows of the candidates, and not the directory with all its labels.
	b.pages.dir = dir.only(b.candidates)
	for i := range b.candidates {
		b.candidates[i] = i
	}
	return nil
}

// needs returns what the candidates' pages and chunks take, rather more than less.
func (b *blockSelection) needs() (pages, chunks int64) {
	for _, number := range b.candidates {
		e := b.pages.dir.Page(number)
		pages += e.Memory() + e.Length + 2*int64(e.Series) + pickedPageBytes
		if b.unordered {
			pages += int64(e.Series) * (sortedBytes + guessLabelBytes)
		}
		chunks += chunkMemory(e.ChunkBytes, int64(e.Chunks))
	}
	switch {
	case !b.sel.readsChunks():
		chunks = 0
	case nameOnly(b.matchers):
		chunks = max(chunks, b.spanBytes())
	default:
		chunks = min(chunks, guessBytes)
	}
	return pages, chunks
}

// chunkMemory is what chunks take: Ranges may hold an eighth more.
func chunkMemory(bytes, chunks int64) int64 { return bytes + bytes/8 + chunks*refBytes }

// pick reads the pages and notes which of their series match. When everything fits in memory, chunks of which the
// directory is sure are read at the same time.
func (b *blockSelection) pick(ctx context.Context, fits bool) error {
	for rest := b.candidates; len(rest) > 0; {
		n := b.pages.batch(rest, b.sel.batch)
		numbers := rest[:n]
		rest = rest[n:]
		pages, missing := b.pages.cached(numbers)
		if missing > 0 && fits && len(rest) == 0 && len(b.picked) == 0 && b.sel.readsChunks() && b.sel.hints.ShardCount == 0 &&
			b.sel.hints.Limit == 0 && nameOnly(b.matchers) && b.spanBytes() <= speculateBytes {
			b.windows.beginEarly(b.spans())
		}
		if err := b.pages.fill(ctx, numbers, pages); err != nil {
			return b.pages.explain(err)
		}
		for i, page := range pages {
			if err := b.pickSeries(numbers[i], page); err != nil {
				return err
			}
		}
		if limit := b.sel.hints.Limit; limit > 0 && b.count >= limit && !b.unordered {
			break
		}
	}
	b.sort()
	b.pages.l.metrics.series.Add(float64(b.count))
	return nil
}

// pickSeries notes the series of a page that match.
func (b *blockSelection) pickSeries(number int, page *index.Page) (err error) {
	defer func() {
		if errors.Is(err, ErrDamaged) {
			err = b.pages.explain(err)
		}
	}()
	defer recovered(&err)
	b.pages.l.metrics.pages.Inc()
	p := pickedPage{number: number, first: b.count}
	var bytes, chunks int64
	for _, i := range page.Select(nil, b.matchers) {
		n, size := overlap(page.Chunks(i), b.sel.mint, b.sel.maxt)
		if n == 0 || !b.inShard(page, i) {
			continue
		}
		p.series = append(p.series, uint16(i))
		bytes, chunks = bytes+size, chunks+int64(n)
	}
	if len(p.series) == 0 {
		return nil
	}
	if err := b.found(len(p.series), bytes); err != nil {
		return err
	}
	kept := int64(len(p.series))*2 + pickedPageBytes
	if b.unordered {
		kept += b.noteLabels(page, p)
	}
	if err := b.sel.keep(kept); err != nil {
		return err
	}
	b.kept += kept
	if n := page.Bytes(); b.sel.pinned.Add(n) <= b.sel.pinMost {
		p.page = page
	} else {
		b.sel.pinned.Add(-n)
		b.sel.rereads.Store(true)
	}
	b.picked = append(b.picked, p)
	b.count += len(p.series)
	if b.sel.readsChunks() {
		b.cost += chunkMemory(bytes, chunks)
	}
	return nil
}

// overlap counts the chunks that overlap the range and their bytes.
func overlap(chunks []index.Chunk, mint, maxt int64) (n int, bytes int64) {
	for _, c := range chunks {
		if c.Overlaps(mint, maxt) {
			n, bytes = n+1, bytes+int64(c.Length)
		}
	}
	return n, bytes
}

// inShard reports whether the query's shard has the series. External labels count: a series is in one shard, whoever
// holds it.
func (b *blockSelection) inShard(page *index.Page, i int) bool {
	count := b.sel.hints.ShardCount
	if count == 0 {
		return true
	}
	hash := page.Hash(i)
	if len(b.external) > 0 {
		var scratch labels.ScratchBuilder
		hash = labels.StableHash(b.external.add(page.Labels(i, &scratch), labels.NewBuilder(labels.EmptyLabels())))
	}
	return hash%count == b.sel.hints.ShardIndex
}

// oneMetric reports whether all candidates are of one metric.
func (b *blockSelection) oneMetric() bool {
	if len(b.candidates) == 0 {
		return true
	}
	for _, m := range b.pages.dir.Metrics() {
		if b.candidates[0] < m.First+m.Pages {
			return b.candidates[len(b.candidates)-1] < m.First+m.Pages
		}
	}
	return false
}

// noteLabels collects the labels of a page's series for sort and returns how much memory that takes.
func (b *blockSelection) noteLabels(page *index.Page, p pickedPage) (bytes int64) {
	var scratch labels.ScratchBuilder
	builder := labels.NewBuilder(labels.EmptyLabels())
	for n, i := range p.series {
		lset := page.Labels(int(i), &scratch)
		if len(b.external) > 0 {
			lset = b.external.add(lset, builder)
		}
		lset, isNew := b.sel.all.share(page.Hash(int(i)), lset)
		if isNew {
			bytes += int64(lset.ByteSize())
		}
		b.sorted = append(b.sorted, sortedSeries{lset, []int{p.first + n}})
	}
	return bytes + int64(len(p.series))*sortedBytes
}

// sort puts the series in label order; those that have become equal become one.
func (b *blockSelection) sort() {
	slices.SortStableFunc(b.sorted, func(x, y sortedSeries) int { return labels.Compare(x.lset, y.lset) })
	out := b.sorted[:0]
	for _, s := range b.sorted {
		if n := len(out); n > 0 && labels.Equal(out[n-1].lset, s.lset) {
			out[n-1].ordinals = append(out[n-1].ordinals, s.ordinals...)
			continue
		}
		out = append(out, s)
	}
	b.sorted = out
	for _, s := range out {
		b.order = append(b.order, s.ordinals...)
	}
}

// undo takes back what pick did.
func (b *blockSelection) undo() {
	b.windows.drop()
	b.sel.s.chunkBytes.Add(-b.bytes)
	b.sel.kept.Add(-b.kept)
	for _, p := range b.picked {
		if p.page != nil {
			b.sel.pinned.Add(-p.page.Bytes())
		}
	}
}

// unpin lets go of the pages.
func (b *blockSelection) unpin() {
	for i := range b.picked {
		b.picked[i].page = nil
	}
}

// countSelect notes how the chunks will be read.
func (b *blockSelection) countSelect(windows bool) {
	how := "whole"
	switch {
	case b.cost == 0:
		how = "none"
	case windows:
		how = "windows"
	}
	b.sel.s.l.metrics.selects.WithLabelValues(how).Inc()
}
