package replicate

import (
	"fmt"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/ring"
)

// item is what is accounted for by itself: an occurrence of a series in a batch with the samples that come with it, or a
// part of one with very many. Metadata is an item without samples.
//
// Each of its replicas answers once at most: then every sample is stored there, or refused there by name.
type item struct {
	series                    int32 // index into the batch's Series; the complement of one into its Metadata
	floats, floatsEnd         int32 // where its samples lie in the batch
	histograms, histogramsEnd int32
	exemplars, exemplarsEnd   int32
	replicas, answers, failed uint8 // of the replicas those that answered, and those that failed and may be asked again
	examples                  uint8 // replicas that hold all of its exemplars

	settled bool
	mixed   bool // a sample of it is refused somewhere
	held    bool // a replica has given a reference to its series
	counts  bool // more than the number of answers decides
}

// samples is how many samples the item has.
func (it *item) samples() int {
	return int(it.floatsEnd - it.floats + it.histogramsEnd - it.histograms)
}

// refusal is what is known of a sample that at least one replica refuses.
type refusal struct {
	by     uint8
	reason duramenpb.Reason
	detail string
}

// ledger accounts for every sample of one push by the verdicts of its replicas. It is pure: it knows neither clock nor
// peers, and whoever holds it serialises calls.
//
// As long as nothing is refused it counts by items: an item's samples have all fared alike.
type ledger struct {
	quorum    int
	items     []item
	undecided int
	refused   map[int32]*refusal // by sample: the index into the batch's Floats, or the complement of one into Histograms
}

// begin starts the accounting of the items.
func (l *ledger) begin(quorum int) {
	l.quorum, l.undecided = quorum, len(l.items)
	clear(l.refused)
}

// answered notes that a replica has stored all samples of the items. Hot.
func (l *ledger) answered(items []int32) {
	for _, i := range items {
		it := &l.items[i]
		it.answers++
		switch {
		case it.settled:
		case it.counts:
			l.judge(it)
		case int(it.answers) >= l.quorum:
			it.settled = true
			l.undecided--
		}
	}
}

// refuse notes that a replica, which is about to answer for item i, refuses a sample of it.
func (l *ledger) refuse(i, sample int32, reason duramenpb.Reason, detail string) {
	if l.refused == nil {
		l.refused = map[int32]*refusal{}
	}
	f := l.refused[sample]
	if f == nil {
		f = &refusal{reason: reason, detail: detail}
		l.refused[sample] = f
	}
	f.by++
	l.items[i].mixed, l.items[i].counts = true, true
}

// failed notes that a replica did not answer for the items. It may be asked again.
func (l *ledger) failed(items []int32) {
	for _, i := range items {
		it := &l.items[i]
		it.failed++
		if it.samples() == 0 {
			it.counts = true
		}
		if !it.settled && it.counts {
			l.judge(it)
		}
	}
}

// again notes that a replica that failed is asked once more for the items.
func (l *ledger) again(items []int32) {
	for _, i := range items {
		l.items[i].failed--
	}
}

// judge settles an item all of whose samples are decided. What has no samples is settled by a quorum, too, but a lack of
// answers is no trouble to it.
func (l *ledger) judge(it *item) {
	done := true
	if it.samples() == 0 {
		done = int(it.answers) >= l.quorum || it.answers+it.failed == it.replicas
	} else {
		pending := int(it.replicas) - int(it.answers) - int(it.failed)
		l.each(it, func(_ int32, stored, refused int, _ *refusal) {
			switch ring.Verdict(stored, refused, int(it.failed), pending, int(it.replicas), l.quorum) {
			case ring.Stored, ring.Refused:
			default:
				done = false
			}
		})
	}
	if done {
		it.settled = true
		l.undecided--
	}
}

// each calls f for the samples of an item, or once for all of them when nothing of it is refused anywhere.
func (l *ledger) each(it *item, f func(sample int32, stored, refused int, r *refusal)) {
	if !it.mixed {
		f(it.floats, int(it.answers), 0, nil)
		return
	}
	one := func(sample int32) {
		r := l.refused[sample]
		if r == nil {
			f(sample, int(it.answers), 0, nil)
			return
		}
		f(sample, int(it.answers)-int(r.by), int(r.by), r)
	}
	for n := it.floats; n < it.floatsEnd; n++ {
		one(n)
	}
	for n := it.histograms; n < it.histogramsEnd; n++ {
		one(^n)
	}
}

// lacking returns an item that is not decided, the one with the fewest answers, and how many samples are undecided.
func (l *ledger) lacking() (worst *item, samples int) {
	for i := range l.items {
		it := &l.items[i]
		if it.settled {
			continue
		}
		samples += it.samples()
		if worst == nil || it.answers < worst.answers {
			worst = it
		}
	}
	return worst, samples
}

// needs reports whether one of the items is not decided.
func (l *ledger) needs(items []int32) bool {
	for _, i := range items {
		if !l.items[i].settled {
			return true
		}
	}
	return false
}

// verdict adds to res what became of the samples of b, once all items are settled.
func (l *ledger) verdict(b *duramenpb.Batch, res *duramenpb.PushResult) error {
	if l.undecided != 0 {
		return errUndecided
	}
	var refused map[refusalKey]int
	for i := range l.items {
		it := &l.items[i]
		if it.exemplarsEnd > it.exemplars && int(it.examples) >= l.quorum {
			res.Exemplars += int(it.exemplarsEnd - it.exemplars)
		}
		if !it.mixed {
			res.Floats += int(it.floatsEnd - it.floats)
			res.Histograms += int(it.histogramsEnd - it.histograms)
			continue
		}
		if refused == nil {
			refused = map[refusalKey]int{}
		}
		if err := l.mixed(it, b, res, refused); err != nil {
			return err
		}
	}
	return nil
}

// refusalKey is what one entry of PushResult.Refused is about.
type refusalKey struct {
	series int32
	reason duramenpb.Reason
}

// mixed adds what became of an item of which something was refused somewhere. What more than one answer came for since it
// was settled can only have come to be stored.
func (l *ledger) mixed(it *item, b *duramenpb.Batch, res *duramenpb.PushResult, known map[refusalKey]int) (err error) {
	l.each(it, func(sample int32, stored, refused int, r *refusal) {
		replicas := int(it.replicas)
		switch ring.Verdict(stored, refused, replicas-stored-refused, 0, replicas, l.quorum) {
		case ring.Stored:
			if sample >= 0 {
				res.Floats++
			} else {
				res.Histograms++
			}
		case ring.Refused:
			key := refusalKey{it.series, r.reason}
			at, ok := known[key]
			if !ok {
				at = len(res.Refused)
				known[key] = at
				res.Refused = append(res.Refused, duramenpb.Refusal{
					Series: int(it.series), Reason: r.reason, Timestamp: timeOf(b, sample),
					Detail: fmt.Sprintf("%s; stored_replicas: %d of %d", r.detail, stored, replicas),
				})
			}
			addRefused(&res.Refused[at], b, sample)
		default:
			err = errUndecided
		}
	})
	return err
}

func addRefused(r *duramenpb.Refusal, b *duramenpb.Batch, sample int32) {
	if sample >= 0 {
		r.Floats++
	} else {
		r.Histograms++
	}
	r.Samples = append(r.Samples, sample)
	r.Timestamp = min(r.Timestamp, timeOf(b, sample))
}

// timeOf is the timestamp of a sample by its index in Floats, or the complement of one in Histograms.
func timeOf(b *duramenpb.Batch, sample int32) int64 {
	if sample >= 0 {
		return b.Floats[sample].T
	}
	return b.Histograms[^sample].T
}
