package reconcile

import (
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

// maxRemembered bounds the candidates that are kept of one tenant; beyond it their meta.json are read at each pass.
const maxRemembered = 10_000

// sighting is what a pass over a tenant leaves for the next one, so that a block that stays unknown is read once.
type sighting struct {
	candidates map[ulid.ULID]judged
	// gone is since when listed blocks are known to miss their meta.json: zero for those that have missed it ever since this
	// process has looked, of which nobody knows that somebody deletes.
	gone     map[ulid.ULID]time.Time
	compared bool // there was a pass
}

// judged is a candidate and what it was judged by.
type judged struct {
	candidate *candidate
	meta      bucket.Object
	files     int
	bytes     int64
	noCompact int // marks against compaction, which may come while the block waits to be adopted
}

func newSighting() *sighting { return &sighting{} }

// recall returns what a folder was judged to be, nil when it was not or has changed since.
func (s *sighting) recall(id ulid.ULID, f *folder) *candidate {
	j, ok := s.candidates[id]
	if meta, has := f.meta(); !ok || !has || j.meta != meta || j.files != len(f.files) || j.bytes != f.dataBytes() ||
		j.noCompact != len(f.noCompact) {
		return nil
	}
	return j.candidate
}

// remember replaces what is known.
func (s *sighting) remember(l *listing, candidates map[ulid.ULID]*candidate) {
	s.candidates = make(map[ulid.ULID]judged, min(len(candidates), maxRemembered))
	for id, c := range candidates {
		f := l.folders[id]
		if meta, has := f.meta(); has && len(s.candidates) < maxRemembered {
			s.candidates[id] = judged{c, meta, len(f.files), f.dataBytes(), len(f.noCompact)}
		}
	}
}

// rememberGone replaces what is known to be gone. The first time that a block was missed stays.
func (s *sighting) rememberGone(gone map[ulid.ULID]struct{}, now time.Time) {
	before := s.gone
	s.gone = make(map[ulid.ULID]time.Time, len(gone))
	for id := range gone {
		since, known := before[id]
		if !known && s.compared {
			since = now
		}
		s.gone[id] = since
	}
	s.compared = true
}
