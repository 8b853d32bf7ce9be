package replicate

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/duramenpb"
)

// maxPooledSection is above which a section's memory is left to the garbage collector.
const maxPooledSection = 256 << 10

// section is what one member gets of a push: encoded, so that it shares nothing with the batch, and what its answer is to
// be understood by. It outlives its push when the member is late.
type section struct {
	r     *Replicator
	table *table
	to    *member
	sends *sends
	// owner is the push that waits for the answer; nil once that has returned. It changes under the push's lock.
	owner atomic.Pointer[push]

	enc  duramenpb.SectionEncoder
	buf  []byte
	life life // the member's TSDB to which the references belong

	items    []int32  // of the ledger: first those of the section's series in order, then those of metadata
	handles  []handle // of the section's series; 0 for none
	labelled []int32  // which of the section's series go with labels

	floats, histograms, exemplars int
	accounted                     int64 // bytes that count as on their way
	late                          int64 // bytes that count as late

	tries int
	next  time.Time // of the next try, once it failed
	err   error
	stale []int32 // which of the section's series have to go again with labels

	done func(*duramenpb.PushResult, error) // answer, bound once
}

// sends is the context under which the sections of one push travel. The last one that is answered cancels it.
type sends struct {
	ctx    context.Context //nolint:containedctx // It outlives the request, for the sections that are late.
	cancel context.CancelFunc
	open   atomic.Int32
}

func (s *sends) end() {
	if s.open.Add(-1) == 0 {
		s.cancel()
	}
}

type sectionPool struct{ pool sync.Pool }

// get returns an empty section; release gives it back.
func (p *sectionPool) get(r *Replicator, t *table, to *member) *section {
	s, _ := p.pool.Get().(*section)
	if s == nil {
		s = &section{}
		s.done = s.answer
	}
	s.r, s.table, s.to = r, t, to
	return s
}

// begin starts the encoding.
func (s *section) begin(l life) {
	s.life = l
	s.enc.Begin(s.buf[:0], s.table.id, l.incarnation)
}

// series adds an occurrence of a series by its reference or, when ref is 0, with lset.
func (s *section) series(i int32, h handle, ref uint64, lset labels.Labels) {
	if ref == 0 {
		s.labelled = append(s.labelled, int32(len(s.handles)))
	}
	s.items = append(s.items, i)
	s.handles = append(s.handles, h)
	s.enc.Series(ref, lset)
}

// samples adds what belongs to the series. Hot.
func (s *section) samples(floats []duramenpb.Float, histograms []duramenpb.Histogram, exemplars []duramenpb.Exemplar) {
	for n := range floats {
		s.enc.Float(floats[n].T, floats[n].ST, floats[n].V)
	}
	s.floats += len(floats)
	for n := range histograms {
		s.enc.Histogram(histograms[n].T, histograms[n].ST, histograms[n].H, histograms[n].FH)
	}
	s.histograms += len(histograms)
	for n := range exemplars {
		s.enc.Exemplar(exemplars[n])
	}
	s.exemplars += len(exemplars)
}

// finish ends the encoding.
func (s *section) finish() {
	s.buf = s.enc.Finish()
	s.accounted = s.bytes()
	s.r.inflight.Add(s.accounted)
	s.r.metrics.bytes.Add(float64(len(s.buf)))
	s.r.metrics.samples.Add(float64(s.floats + s.histograms))
}

func (s *section) bytes() int64 {
	return int64(cap(s.buf) + 4*cap(s.items) + 8*cap(s.handles) + 4*cap(s.labelled))
}

// send sends the section under c; whoever calls holds no lock. Afterwards the section is the answer's.
func (s *section) send(c *sends) {
	s.sends = c
	c.open.Add(1)
	s.to.sends.Inc()
	if s.to.late.Load() > 0 && s.r.behind(s.to, s.accounted) {
		s.answer(nil, unavailable(errBehind))
		return
	}
	s.to.peer.Send(c.ctx, s.table.id, s.buf, s.done)
}

// behind reports whether a member is to get nothing for now: too much is late in all, and it has its share in that.
func (r *Replicator) behind(m *member, more int64) bool {
	late := r.lateBytes.Load()
	if late+more <= r.cfg.MaxLateBytes {
		return false
	}
	return m.late.Load()*int64(len(r.current.Load().numbers)) >= late
}

// answer takes the verdict on the section.
func (s *section) answer(res *duramenpb.PushResult, err error) {
	s.sends.end()
	if err == nil {
		err = s.check(res)
	}
	if err == nil {
		s.learn(res)
	} else {
		s.to.fails.Inc()
	}
	for {
		p := s.owner.Load()
		if p == nil {
			s.answeredLate(res, err)
			return
		}
		p.mu.Lock()
		if s.owner.Load() != p {
			p.mu.Unlock()
			continue
		}
		p.take(s, res, err)
		p.mu.Unlock()
		return
	}
}

// check says whether the verdict accounts for each sample of the section once, and for no other.
func (s *section) check(res *duramenpb.PushResult) error {
	if len(res.Stale)+len(res.Refused) == 0 {
		if res.Floats != s.floats || res.Histograms != s.histograms {
			return s.mismatch()
		}
		return nil
	}
	slices.Sort(res.Stale)
	last := -1
	for _, j := range res.Stale {
		if j <= last || j >= len(s.handles) {
			return s.mismatch()
		}
		last = j
	}
	for _, j := range s.labelled {
		if _, ok := slices.BinarySearch(res.Stale, int(j)); ok {
			return unavailable(errLostTwice)
		}
	}
	return nil
}

func (s *section) mismatch() error {
	s.r.metrics.mismatch.Inc()
	return unavailable(errUnaccounted)
}

// learn notes the references of series that went with labels, and which life of the member's TSDB they are of.
func (s *section) learn(res *duramenpb.PushResult) {
	if res.Incarnation == 0 || len(s.labelled) == 0 && res.Incarnation == s.life.incarnation {
		return
	}
	t := s.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	for int(s.to.number) >= len(t.lives) {
		t.lives = append(t.lives, life{})
		t.account(lifeBytes)
	}
	known := &t.lives[s.to.number]
	if known.incarnation != res.Incarnation {
		if known.no != s.life.no {
			return // Another answer has told of a newer life meanwhile.
		}
		*known = life{incarnation: res.Incarnation, no: known.no + 1}
		t.restarts.Add(1)
	}
	if len(res.Refs) != len(s.handles) {
		return
	}
	for _, j := range s.labelled {
		_, replicas := t.find(s.handles[j])
		for k := range replicas {
			if replicas[k].member == s.to.number && res.Refs[j] != 0 {
				replicas[k].ref, replicas[k].life = res.Refs[j], known.no
			}
		}
	}
}

// answeredLate ends a section of which nobody waits for the answer. What is stale still goes again with labels.
func (s *section) answeredLate(res *duramenpb.PushResult, err error) {
	r := s.r
	r.addLate(s, -s.late)
	s.late = 0
	switch {
	case err != nil:
		r.metrics.late.WithLabelValues(lateFailed).Inc()
	case len(res.Stale) > 0:
		for _, j := range res.Stale {
			s.stale = append(s.stale, int32(j))
		}
		r.resendLate(s)
		return
	case len(res.Refused) > 0:
		r.metrics.late.WithLabelValues(lateRefused).Inc()
	default:
		r.metrics.late.WithLabelValues(lateStored).Inc()
	}
	s.release()
	r.end()
}

// addLate counts the bytes of a section as late.
func (r *Replicator) addLate(s *section, n int64) {
	s.late += n
	s.to.late.Add(n)
	r.lateBytes.Add(n)
}

// release gives the section back. It has to be answered, and nothing of it may be used any more.
func (s *section) release() {
	s.r.inflight.Add(-s.accounted)
	junk(s.buf)
	r := s.r
	if cap(s.buf) > maxPooledSection {
		s.buf = nil
	}
	*s = section{
		enc: s.enc, buf: s.buf[:0], items: s.items[:0], handles: s.handles[:0], labelled: s.labelled[:0],
		stale: s.stale[:0], done: s.done,
	}
	r.sections.pool.Put(s)
}

// places are where the samples of the section's series begin in the section.
type places struct{ floats, histograms int32 }

// refusals enters the samples that the verdict refuses into the ledger, and returns an error when the verdict does not
// account for each sample once. stale is what is not accounted for.
func (s *section) refusals(l *ledger, res *duramenpb.PushResult) error {
	starts := make([]places, len(s.handles)+1)
	floats, histograms := int32(0), int32(0)
	staleAt, staleFloats, staleHistograms := 0, int32(0), int32(0)
	for j := range s.handles {
		it := &l.items[s.items[j]]
		starts[j] = places{floats, histograms}
		if staleAt < len(res.Stale) && res.Stale[staleAt] == j {
			staleAt++
			staleFloats += it.floatsEnd - it.floats
			staleHistograms += it.histogramsEnd - it.histograms
		}
		floats += it.floatsEnd - it.floats
		histograms += it.histogramsEnd - it.histograms
	}
	starts[len(s.handles)] = places{floats, histograms}
	refused, err := s.named(res, starts)
	if err != nil {
		return err
	}
	if res.Floats+refused.floats+int(staleFloats) != s.floats ||
		res.Histograms+refused.histograms+int(staleHistograms) != s.histograms {
		return s.mismatch()
	}
	for i := range res.Refused {
		f := &res.Refused[i]
		it := &l.items[s.items[f.Series]]
		for _, n := range f.Samples {
			if n >= 0 {
				l.refuse(s.items[f.Series], it.floats+n-starts[f.Series].floats, f.Reason, f.Detail)
			} else {
				l.refuse(s.items[f.Series], ^(it.histograms + ^n - starts[f.Series].histograms), f.Reason, f.Detail)
			}
		}
	}
	return nil
}

type counts struct{ floats, histograms int }

// named checks that each refused sample is named, once, by a refusal of its series, and is not stale.
func (s *section) named(res *duramenpb.PushResult, starts []places) (n counts, err error) {
	seen := map[int32]struct{}{}
	for i := range res.Refused {
		f := &res.Refused[i]
		if f.Series < 0 || f.Series >= len(s.handles) || len(f.Samples) != f.Floats+f.Histograms {
			return n, s.mismatch()
		}
		if _, ok := slices.BinarySearch(res.Stale, f.Series); ok {
			return n, s.mismatch()
		}
		n.floats += f.Floats
		n.histograms += f.Histograms
		from, to := starts[f.Series], starts[f.Series+1]
		floats := 0
		for _, at := range f.Samples {
			ok := at >= from.floats && at < to.floats
			if at < 0 {
				ok = ^at >= from.histograms && ^at < to.histograms
			} else {
				floats++
			}
			if _, twice := seen[at]; !ok || twice {
				return n, s.mismatch()
			}
			seen[at] = struct{}{}
		}
		if floats != f.Floats {
			return n, s.mismatch()
		}
	}
	return n, nil
}
