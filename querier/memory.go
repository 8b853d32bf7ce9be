package querier

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"github.com/duramendb/duramen/internal/errkind"
)

// What a query holds in memory is bounded by two classes. All queries begin small: half of the memory for queries is
// divided among all slots. One that turns out to need more gives its slot back, waits for one of a few large ones, among
// which the other half is divided, and is carried out anew. What is too much for that is refused. So however many large
// queries there are, they take turns, and small ones go on beside them.
const (
	// sampleBytes is what a sample costs that the engine holds: 16 bytes, and as much again while lists grow and the
	// answer is written.
	sampleBytes = 32
	// seriesBytes and sourceBytes are what a series costs, beside its labels, that the engine or a list holds, and what
	// each block does that has a part of it; their labels are shared.
	seriesBytes, sourceBytes = 200, 120
	// stringBytes is what a name or value of a list costs, beside three times its length: where it lies, in the list of a
	// tier, of both, and in the answer.
	stringBytes = 48
)

// classes are the bounds of small and large queries; 0 is none.
type classes struct {
	small, large int64 // bytes
	largeSlots   int
}

// newClasses divides memory, in bytes, for n slots. Without any, or when all samples that a query may have fit in a small
// one, there is one class.
func newClasses(memory int64, n int) classes {
	if memory <= 0 {
		return classes{}
	}
	few := max(1, n/8)
	return classes{small: memory / 2 / int64(n), large: memory / 2 / int64(few), largeSlots: few}
}

// samplesIn returns how many samples a query of so many bytes may hold.
func samplesIn(bytes int64, most int) int {
	if bytes == 0 {
		return most
	}
	return int(max(1, min(int64(most), bytes/sampleBytes)))
}

// seat is the slot of a query and the memory that goes with it. It is for one goroutine.
type seat struct {
	q        *Querier
	tenantID string
	kind     int
	large    bool
	release  func()
}

type seatKey struct{}

// seatOf returns the seat of a query, nil when it has none and is not bounded.
func seatOf(ctx context.Context) *seat {
	s, _ := ctx.Value(seatKey{}).(*seat)
	return s
}

// bytes returns what the query may hold; 0 is no bound.
func (s *seat) bytes() int64 {
	switch {
	case s == nil:
		return 0
	case s.large:
		return s.q.classes.large
	default:
		return s.q.classes.small
	}
}

// leave gives the slot back. Further calls do nothing.
func (s *seat) leave() {
	if s.release != nil {
		s.release()
		s.release = nil
	}
}

// enlarge changes a small seat for a large one. It holds none while it waits.
func (s *seat) enlarge(ctx context.Context) error {
	s.leave()
	release, err := s.q.large.take(ctx, s.tenantID, s.kind)
	if err != nil {
		return err
	}
	s.large, s.release = true, release
	return nil
}

// errMemory means that a query holds more than its seat allows.
type errMemory struct{ needs, most int64 }

func (e errMemory) Error() string {
	return fmt.Sprintf("the query needs %d bytes of memory or more; a query may have %d here, by querier.memory_share",
		e.needs, e.most)
}

// tooLarge reports that a query ended because it holds too much for its seat.
func tooLarge(err error) bool {
	var samples promql.ErrTooManySamples
	return errors.As(cause(err), new(errMemory)) || errors.As(err, &samples)
}

// fitting carries out a query in its seat, and anew in a large one when it is too large for that. attempt is told whether
// the seat is large.
func (q *Querier) fitting(ctx context.Context, attempt func(large bool) error) error {
	s := seatOf(ctx)
	err := attempt(s != nil && s.large)
	if s == nil || q.classes.small == 0 || !tooLarge(err) {
		return err
	}
	if !s.large {
		q.metrics.enlarged.Inc()
		if err := s.enlarge(ctx); err != nil {
			return err
		}
		if err = attempt(true); !tooLarge(err) {
			return err
		}
	}
	q.metrics.tooLarge.Inc()
	var samples promql.ErrTooManySamples
	if most := samplesIn(q.classes.large, q.cfg.MaxSamples); errors.As(err, &samples) && most < q.cfg.MaxSamples {
		err = fmt.Errorf("%w: more than %d, which is what a query may have here, by querier.memory_share; "+
			"querier.max_samples is %d", err, most, q.cfg.MaxSamples)
	}
	return errkind.Wrap(errkind.Unprocessable, cause(err))
}

// held adds up what a query holds of series.
type held struct {
	bytes, most int64
}

// add counts a series, unless it is nil. The error is errMemory.
func (h *held) add(series storage.Labels) error {
	if h.most == 0 || series == nil {
		return nil
	}
	sources := int64(1)
	if s, ok := series.(interface{ Sources() int }); ok {
		sources = int64(s.Sources())
	}
	size := int64(series.Labels().ByteSize())
	if s, ok := series.(interface{ Held() int }); ok { // chunks of ingesters elsewhere
		size += int64(s.Held())
	}
	return h.spend(seriesBytes + size + sources*sourceBytes)
}

// addStrings counts names or values of labels, as they come and as they are answered.
func (h *held) addStrings(lists ...[]string) error {
	n := int64(0)
	for _, list := range lists {
		n += int64(len(list)) * stringBytes
		for _, s := range list {
			n += 3 * int64(len(s))
		}
	}
	return h.spend(n)
}

// within narrows the hints of a list, which may be nil, to one more than fits: that one is too many in the end, and neither
// tier makes a list of all that there is.
func (h *held) within(hints *storage.LabelHints) *storage.LabelHints {
	if h.most == 0 {
		return hints
	}
	var narrowed storage.LabelHints
	if hints != nil {
		narrowed = *hints
	}
	if most := int(max(h.most-h.bytes, 0)/stringBytes) + 1; narrowed.Limit <= 0 || narrowed.Limit > most {
		narrowed.Limit = most
	}
	return &narrowed
}

// spend counts so many bytes. The error is errMemory.
func (h *held) spend(n int64) error {
	if h.most == 0 {
		return nil
	}
	if h.bytes += n; h.bytes > h.most {
		return errMemory{h.bytes, h.most}
	}
	return nil
}
