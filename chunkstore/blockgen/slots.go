package blockgen

import (
	"math"
	"math/rand/v2"
	"time"
)

// SlotLength is how long a block of an ingester is at most, in milliseconds; it begins at a multiple of that.
const SlotLength = int64(2 * time.Hour / time.Millisecond)

// slotStep is about the time between two samples of a series of a slot, in milliseconds.
const slotStep = int64(10 * time.Minute / time.Millisecond)

// SlotOptions say which blocks NewSlots makes.
type SlotOptions struct {
	// Start is a multiple of SlotLength, in milliseconds; Count slots follow one another from there.
	Start int64
	Count int
	// Replicas bounds the blocks of a slot, those of late samples apart; at least 1.
	Replicas int
	// Series is how many there are, some of which each block lacks. Two sets of one Universe have the same ones.
	Series   int
	Universe uint64
	// Conflicts lets some blocks have another value than others at one time.
	Conflicts bool
}

// NewSlots makes a set of blocks as several ingesters ship them: each lies in one slot, replicas have most samples and
// many chunks in common, and some slots have a block of samples that came late. Their ULIDs are of the hour after the slot.
// What the set is depends on r and o alone.
func NewSlots(r *rand.Rand, o SlotOptions) (*Random, error) {
	s := &Random{MinTime: o.Start, MaxTime: o.Start + int64(o.Count)*SlotLength}
	all := randomUniverse(rand.New(rand.NewPCG(o.Universe, 1)), o.Series)
	for _, x := range all {
		s.Labels = append(s.Labels, x.lset)
	}
	other := math.MaxInt
	if o.Conflicts {
		other = 5 + r.IntN(40)
	}
	for slot := range int64(o.Count) {
		mint := o.Start + slot*SlotLength
		first, replicas := len(s.Blocks), 1+r.IntN(o.Replicas)
		for i := range replicas + r.IntN(2) {
			opt := Options{
				ULID:    ULID(mint+SlotLength+r.Int64N(SlotLength/2), r.Uint64()),
				MinTime: mint, MaxTime: mint + SlotLength, Sidecar: r.IntN(4) > 0,
				SegmentBytes: []int64{0, 0, 3000}[r.IntN(3)],
			}
			var series []Series
			switch {
			case i == replicas:
				opt.OutOfOrder = true
				series = someBlock(r, all, mint, opt.MaxTime, slotStep, 1+r.Int64N(slotStep), 1, 3, other)
			case len(s.Series) > first && r.IntN(2) == 0: // the same bytes
				series = s.Series[first+r.IntN(len(s.Series)-first)]
			default:
				series = someBlock(r, all, mint, opt.MaxTime, slotStep, 0, r.IntN(2), 2+r.IntN(20), other)
			}
			if len(series) == 0 {
				continue
			}
			b, err := Build(opt, series)
			if err != nil {
				return nil, err
			}
			s.Blocks, s.Series = append(s.Blocks, b), append(s.Series, series)
		}
	}
	return s, nil
}
