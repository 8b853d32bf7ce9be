package ingestrpc

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/duramendb/duramen/internal/rpcframe"
)

// How many series and chunks are allocated together.
const (
	seriesSlab = 64
	chunkSlab  = 512
)

// seriesSet reads the series of a Select as they come. One goroutine uses it.
type seriesSet struct {
	call    *readCall
	receive func() ([]byte, error) // of the call
	frame   rpcframe.Decoder       // what is left of it
	labels  labelsDecoder
	last    labels.Labels

	current *receivedSeries
	series  []receivedSeries // room
	chunks  []chunks.Meta    // room

	items, count int // series and chunks that came
	whole        bool
	err          error
	warnings     annotations.Annotations
}

var _ storage.ChunkSeriesSet = (*seriesSet)(nil)

func newSeriesSet(call *readCall) *seriesSet {
	s := &seriesSet{call: call, labels: newLabelsDecoder(), last: labels.EmptyLabels()}
	if call != nil {
		s.receive = call.receive
	}
	return s
}

// Next advances to the next series, all of which has come then.
func (s *seriesSet) Next() bool {
	if s.whole || s.err != nil {
		return false
	}
	more, err := s.next()
	switch {
	case err != nil:
		s.err = s.call.failed(err)
	case !more:
		s.whole = true
		s.err = s.call.end(nil)
	}
	return more && err == nil
}

// At returns the current series.
func (s *seriesSet) At() storage.ChunkSeries { return s.current }

// Err is nil only when all series have come.
func (s *seriesSet) Err() error { return s.err }

// Warnings returns those of the ingester, which come behind the last series.
func (s *seriesSet) Warnings() annotations.Annotations { return s.warnings }

// next reads one series. more is false at the end of an answer that is whole.
func (s *seriesSet) next() (more bool, err error) {
	if more, err = s.fill(); err != nil || !more {
		return false, err
	}
	if s.frame.Byte() != itemSeries {
		return false, rpcframe.ErrCut
	}
	lset := s.labels.decode(&s.frame)
	if s.frame.Err() != nil {
		return false, s.frame.Err()
	}
	if s.items > 0 && labels.Compare(s.last, lset) >= 0 {
		return false, fmt.Errorf("series %s came behind %s", lset, s.last)
	}
	s.last = lset
	metas, err := s.readChunks()
	if err != nil {
		return false, err
	}
	s.items++
	s.count += len(metas)
	if len(s.series) == 0 {
		s.series = make([]receivedSeries, seriesSlab)
	}
	s.current, s.series = &s.series[0], s.series[1:]
	s.current.labels, s.current.chunks = lset, metas
	return true, nil
}

// readChunks reads the chunks of a series to its end.
func (s *seriesSet) readChunks() ([]chunks.Meta, error) {
	n := 0
	for {
		more, err := s.fill()
		switch {
		case err != nil:
			return nil, err
		case !more:
			return nil, errShort
		}
		switch s.frame.Byte() {
		case itemChunk:
			if n == len(s.chunks) {
				s.grow(n)
			}
			if s.chunks[n], err = decodeChunk(&s.frame); err != nil {
				return nil, err
			}
			n++
		case itemEnd:
			if count := s.frame.Uvarint(); s.frame.Err() != nil || count != uint64(n) {
				return nil, fmt.Errorf("%d of %d chunks of series %s came", n, count, s.last)
			}
			metas := s.chunks[:n:n]
			s.chunks = s.chunks[n:]
			return metas, nil
		default:
			return nil, rpcframe.ErrCut
		}
	}
}

// grow makes room for more chunks than the n of the current series.
func (s *seriesSet) grow(n int) {
	room := make([]chunks.Meta, max(chunkSlab, 2*n))
	copy(room, s.chunks[:n])
	s.chunks = room
}

// fill receives frames until there is something to read. more is false when the answer is done and nothing is missing.
func (s *seriesSet) fill() (more bool, err error) {
	for !s.frame.More() {
		if s.frame.Err() != nil {
			return false, s.frame.Err()
		}
		frame, err := s.receive()
		if err != nil {
			return false, err
		}
		switch frame[0] {
		case frameSeries:
			s.frame = rpcframe.NewDecoder(frame[1:])
			s.labels.begin()
		case frameDone:
			return false, s.done(frame[1:])
		default:
			return false, errFrame(frame[0])
		}
	}
	return true, nil
}

func (s *seriesSet) done(frame []byte) error {
	done, err := decodeDone(frame)
	if err != nil {
		return err
	}
	if done.items != s.items || done.chunks != s.count {
		return fmt.Errorf("%d series with %d chunks came of %d with %d", s.items, s.count, done.items, done.chunks)
	}
	for _, w := range done.warnings {
		s.warnings.Add(warning(w))
	}
	return nil
}

// warning is the text of an ingester's warning.
type warning string

// Error implements error, of which annotations are made.
func (w warning) Error() string { return string(w) }

// receivedSeries is a series with all of its chunks.
type receivedSeries struct {
	labels labels.Labels
	chunks []chunks.Meta
}

// Labels implements storage.ChunkSeries.
func (s *receivedSeries) Labels() labels.Labels { return s.labels }

// Iterator implements storage.ChunkSeries.
func (s *receivedSeries) Iterator(it chunks.Iterator) chunks.Iterator {
	if again, ok := it.(*receivedChunks); ok {
		*again = receivedChunks{chunks: s.chunks, at: -1}
		return again
	}
	return &receivedChunks{chunks: s.chunks, at: -1}
}

type receivedChunks struct {
	chunks []chunks.Meta
	at     int
}

// Next implements chunks.Iterator.
func (c *receivedChunks) Next() bool {
	if c.at+1 >= len(c.chunks) {
		return false
	}
	c.at++
	return true
}

// At implements chunks.Iterator.
func (c *receivedChunks) At() chunks.Meta { return c.chunks[c.at] }

// Err implements chunks.Iterator.
func (c *receivedChunks) Err() error { return nil }
