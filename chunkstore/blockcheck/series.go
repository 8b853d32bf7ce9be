package blockcheck

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/chunkstore/rawblock"
)

const (
	// maxSeriesBytes bounds one series in the index: about a million chunks, far more than a block can hold of one.
	maxSeriesBytes = 16 << 20

	// maxResyncBytes bounds what is tried behind a damaged series, where lengths are guesses.
	maxResyncBytes = 1 << 20

	// maxShown is how much of a series' labels a fault shows.
	maxShown = 500
)

// seriesWalk checks the series of an index one after another.
type seriesWalk struct {
	c        *check
	f        *file
	symbols  *symbols // nil when they cannot be used
	segments *segments
	pairs    map[[2]uint64]uint64 // hashes of label pairs by their symbols, bounded

	previous labels.Labels
	began    bool // previous is set
	builder  labels.ScratchBuilder
	chunks   []rawblock.Chunk
}

// series walks over [from, to).
func (c *check) series(f *file, table *symbols, segs *segments, from, to int64) error {
	w := &seriesWalk{c: c, f: f, symbols: table, segments: segs, pairs: map[[2]uint64]uint64{}}
	for off := from; off < to; {
		at := alignUp(off, rawblock.SeriesAlign)
		if at >= to {
			return c.padding(f, off, to, rawblock.SeriesAlign)
		}
		if err := c.padding(f, off, at, rawblock.SeriesAlign); err != nil {
			return err
		}
		end, err := w.one(at, to)
		if err != nil {
			return err
		}
		off = end
	}
	return nil
}

// one checks the series at off and returns where what follows it begins.
func (w *seriesWalk) one(off, limit int64) (end int64, err error) {
	content, end, err := w.entry(off, limit, maxSeriesBytes)
	if errors.Is(err, errBroken) {
		next, err2 := w.resync(off, limit)
		w.c.unread = true
		w.c.fault(w.f.name, off, "", "%v: up to byte %d no series can be read", err, next)
		return next, err2
	}
	if err != nil {
		return 0, err
	}
	// Reading symbols and chunks leaves the window as it is: they have files of their own.
	return end, w.content(off, content)
}

// errBroken means that no intact series is at an offset.
var errBroken = errors.New("broken series")

// entry returns what the checksum of the series at off covers, and where the entry ends.
func (w *seriesWalk) entry(off, limit, most int64) (content []byte, end int64, err error) {
	head, err := w.f.upTo(off, min(binary.MaxVarintLen64, limit-off))
	if err != nil {
		return nil, 0, err
	}
	n, used := binary.Uvarint(head)
	from := off + int64(used)
	if used <= 0 || n > uint64(most) || int64(n)+crc32.Size > limit-from { //nolint:gosec // n is below most
		return nil, 0, fmt.Errorf("%w: its length is impossible", errBroken)
	}
	to := from + int64(n) //nolint:gosec // as above
	b, err := w.f.at(from, to-from+crc32.Size)
	if err != nil {
		return nil, 0, err
	}
	if !rawblock.Intact(b[:n], b[n:]) {
		return nil, 0, fmt.Errorf("%w: its checksum differs", errBroken)
	}
	return b[:n], to + crc32.Size, nil
}

// resync returns the offset of the next intact series behind off, or limit.
func (w *seriesWalk) resync(off, limit int64) (int64, error) {
	for at := off + rawblock.SeriesAlign; at < limit; at += rawblock.SeriesAlign {
		content, _, err := w.entry(at, limit, maxResyncBytes)
		if err == nil && len(content) > 0 {
			return at, nil
		}
		if err != nil && !errors.Is(err, errBroken) {
			return 0, err
		}
	}
	return limit, nil
}

// content checks what an intact entry says.
func (w *seriesWalk) content(off int64, b []byte) error {
	w.c.sum.Series++
	d := rawblock.Cursor{B: b}
	name, err := w.labels(off, &d)
	if err != nil {
		return err
	}
	var ok bool
	if w.chunks, ok = d.Chunks(w.chunks[:0]); !ok || len(d.B) > 0 {
		w.c.unread = true
		w.c.fault(w.f.name, off, name(), "its entry in the index cannot be decoded")
		return nil
	}
	if len(w.chunks) == 0 {
		w.c.fault(w.f.name, off, name(), "it has no chunks")
	}
	if w.began {
		w.c.indexed.begin(w.previous)
		defer func() { w.c.indexed.end(w.previous.Get(labels.MetricName)) }()
	}
	for i, m := range w.chunks {
		if i > 0 && m.MinTime <= w.chunks[i-1].MaxTime {
			w.c.fault(w.f.name, off, name(), "its chunk from %d to %d does not follow the one from %d to %d",
				m.MinTime, m.MaxTime, w.chunks[i-1].MinTime, w.chunks[i-1].MaxTime)
		}
		if m.MaxTime < m.MinTime {
			w.c.fault(w.f.name, off, name(), "its chunk has the range from %d to %d", m.MinTime, m.MaxTime)
		}
		end, err := w.segments.expect(m, name)
		if err != nil {
			return err
		}
		if w.c.chunk != nil && w.began && w.segments.seen.samples > 0 {
			seen := w.segments.seen
			w.c.chunk(Chunk{w.previous, m.MinTime, m.MaxTime, seen.samples, seen.sum})
		}
		w.c.indexed.chunk(m.Segment, m.Offset, end, m.MinTime, m.MaxTime)
	}
	return nil
}

// labels checks the labels of the series at off and returns how to name it. The only errors are the source's.
func (w *seriesWalk) labels(off int64, d *rawblock.Cursor) (name func() string, err error) {
	ref := uint64(off / rawblock.SeriesAlign)
	w.c.all.add("", pairHash("", ""), ref)
	w.builder.Reset()
	var before []byte
	sane := true
	for range d.Uvarint() {
		n, v := d.Uvarint(), d.Uvarint()
		if d.Err != nil {
			break // said by the caller
		}
		if w.symbols == nil {
			sane = false
			continue
		}
		label, value, err := w.pair(n, v)
		if errors.Is(err, errSymbol) {
			w.c.fault(w.f.name, off, "", "a label is %v", err)
			sane = false
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(before) > 0 && bytes.Compare(before, []byte(label)) >= 0 {
			w.c.fault(w.f.name, off, "", "label %s does not follow %q in order", describe(label, value), before)
			sane = false
		}
		if label == "" || value == "" || !utf8.ValidString(label) || !utf8.ValidString(value) {
			w.c.fault(w.f.name, off, "", "label %s is none that can be: empty, or not UTF-8", describe(label, value))
			sane = false
		}
		before = append(before[:0], label...)
		w.builder.Add(label, value)
		w.c.all.add(label, w.hash(n, v, label, value), ref)
	}
	if !sane || d.Err != nil {
		w.began = false // nothing to compare the next one with
		return func() string { return "" }, nil
	}
	lset := w.builder.Labels()
	name = func() string { return shown(lset) }
	if lset.IsEmpty() {
		w.c.fault(w.f.name, off, "", "a series has no labels")
	}
	if w.began && labels.Compare(w.previous, lset) >= 0 {
		w.c.fault(w.f.name, off, name(), "it does not follow %s in order", shown(w.previous))
	}
	w.previous, w.began = lset, true
	return name, nil
}

// errSymbol means that a series refers to a symbol that is not there.
var errSymbol = errors.New("of a symbol that does not exist")

func (w *seriesWalk) pair(n, v uint64) (name, value string, err error) {
	if n >= w.symbols.count || v >= w.symbols.count {
		return "", "", errSymbol
	}
	if name, err = w.symbols.get(n); err != nil {
		return "", "", err
	}
	value, err = w.symbols.get(v)
	return name, value, err
}

// hash is pairHash, kept for pairs that come again.
func (w *seriesWalk) hash(n, v uint64, name, value string) uint64 {
	key := [2]uint64{n, v}
	h, ok := w.pairs[key]
	if !ok {
		if len(w.pairs) >= maxCached {
			clear(w.pairs)
		}
		h = pairHash(name, value)
		w.pairs[key] = h
	}
	return h
}

func pairHash(name, value string) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(name) // a hash takes everything
	_, _ = d.Write([]byte{0xff})
	_, _ = d.WriteString(value)
	return d.Sum64()
}

func shown(lset labels.Labels) string {
	text := lset.String()
	if len(text) > maxShown {
		return text[:maxShown] + "…"
	}
	return text
}
