package index

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
)

// Magic is how every sidecar begins.
const Magic = magic

// errContradiction means that a page and the directory, both intact, say different things.
var errContradiction = errors.New("page and directory contradict one another")

// Checker compares all pages of a sidecar with its directory: a query believes the directory about what a page holds. It
// is for one goroutine.
type Checker struct {
	d   *Directory
	dec *Decoder

	before    *lastSeries           // of all
	last      map[string]lastSeries // of the metrics with pages to come
	confirmed uint64                // pairs of a label's value and a page that has it
}

type lastSeries struct {
	lset  labels.Labels
	pages int // of the metric so far
}

// NewChecker returns a checker that has seen no page.
func NewChecker(d *Directory, dec *Decoder) *Checker {
	return &Checker{d: d, dec: dec, last: map[string]lastSeries{}}
}

// Page compares one page. Pages come in the order of their offsets, each once.
func (c *Checker) Page(number int, p *Page) error {
	e := c.d.Page(number)
	own := PageEntry{Offset: e.Offset, Length: e.Length, Series: uint32(p.Len()), Chunks: uint32(len(p.chunks))}
	for i, chunk := range p.chunks {
		own.ChunkBytes += int64(chunk.Length)
		if i == 0 || chunk.MinTime < own.MinTime {
			own.MinTime = chunk.MinTime
		}
		if i == 0 || chunk.MaxTime > own.MaxTime {
			own.MaxTime = chunk.MaxTime
		}
		if !e.holds(chunk) {
			return fmt.Errorf("%w: a chunk lies outside of the spans", errContradiction)
		}
	}
	if len(p.chunks) == 0 {
		own.MinTime, own.MaxTime = e.MinTime, e.MaxTime
	}
	if own.Series != e.Series || own.Chunks != e.Chunks || own.ChunkBytes != e.ChunkBytes ||
		own.MinTime != e.MinTime || own.MaxTime != e.MaxTime {
		return fmt.Errorf("%w: %d series, %d chunks of %d bytes from %d to %d, and %d, %d of %d from %d to %d", errContradiction,
			own.Series, own.Chunks, own.ChunkBytes, own.MinTime, own.MaxTime, e.Series, e.Chunks, e.ChunkBytes, e.MinTime, e.MaxTime)
	}
	if err := c.series(number, p); err != nil {
		return err
	}
	return c.labels(number, p)
}

func (e *PageEntry) holds(c Chunk) bool {
	for _, s := range e.Spans {
		if s.Segment == c.Segment && s.Start <= c.Offset && c.Offset+c.Length <= s.End {
			return true
		}
	}
	return false
}

// series checks metric, hashes and order of the series.
func (c *Checker) series(number int, p *Page) error {
	m := c.d.metricOf(number)
	last, continues := c.last[m.Name]
	before := &last
	switch {
	case c.d.Ordered && c.before != nil:
		before = c.before
	case c.d.Ordered || !continues:
		before = nil
	}
	var b labels.ScratchBuilder
	for i := range p.Len() {
		lset := p.Labels(i, &b)
		switch {
		case lset.Get(labels.MetricName) != m.Name:
			return fmt.Errorf("%w: series %s is among those of %q", errContradiction, lset, m.Name)
		case labels.StableHash(lset) != p.Hash(i):
			return fmt.Errorf("%w: series %s has the hash of another", errContradiction, lset)
		case before != nil && labels.Compare(before.lset, lset) >= 0:
			return fmt.Errorf("%w: series %s does not follow %s in order", errContradiction, lset, before.lset)
		}
		before = &lastSeries{lset: lset}
	}
	if before == nil {
		return nil
	}
	last = lastSeries{before.lset, last.pages + 1}
	c.before = &last
	if c.last[m.Name] = last; last.pages == m.Pages {
		delete(c.last, m.Name)
	}
	return nil
}

// metricOf returns the metric of a page.
func (d *Directory) metricOf(number int) Metric {
	low, high := 0, len(d.metrics)
	for low+1 < high {
		if middle := (low + high) / 2; d.metrics[middle].First <= number {
			low = middle
		} else {
			high = middle
		}
	}
	return d.metrics[low]
}

// labels checks that the directory finds the page by each label that it has.
func (c *Checker) labels(number int, p *Page) error {
	for i := range p.columns {
		column := &p.columns[i]
		if column.name == labels.MetricName {
			continue
		}
		l := c.d.label(column.name)
		if l == nil {
			return fmt.Errorf("%w: label %s is not listed", errContradiction, column.name)
		}
		v, err := c.d.decode(c.dec, l)
		if err != nil {
			return err
		}
		used := make([]bool, len(column.values)+1)
		for s := range p.hashes {
			used[column.ref(s)] = true
		}
		if used[0] && !inRuns(l.absent, number) {
			return fmt.Errorf("%w: series without label %s are not listed", errContradiction, column.name)
		}
		for j, value := range column.values {
			at, ok := v.find(value)
			if !ok || !inRuns(v.runs[v.starts[at]:v.starts[at+1]], number) || !used[j+1] {
				return fmt.Errorf("%w: value %q of label %s is not listed, or has no series", errContradiction, value, column.name)
			}
			c.confirmed++
		}
	}
	return nil
}

func inRuns(runs []pageRun, page int) bool {
	for _, r := range runs {
		if r.from <= uint32(page) && uint32(page) < r.to {
			return true
		}
	}
	return false
}

// End says whether the directory knows values that no page has. It comes after the last page.
func (c *Checker) End() error {
	claimed := uint64(0)
	for _, l := range c.d.labels {
		if l.name == labels.MetricName {
			continue
		}
		v, err := c.d.decode(c.dec, l)
		if err != nil {
			return err
		}
		for i := range v.names {
			runs := v.runs[v.starts[i]:v.starts[i+1]]
			if len(runs) == 0 {
				return fmt.Errorf("%w: value %q of label %s is in no page", errContradiction, v.names[i], l.name)
			}
			for _, r := range runs {
				claimed += uint64(r.to - r.from)
			}
		}
	}
	if claimed != c.confirmed {
		return fmt.Errorf("%w: %d times a value is said to be in a page, %d times it is", errContradiction, claimed, c.confirmed)
	}
	return nil
}
