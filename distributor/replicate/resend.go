package replicate

import (
	"context"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/duramenpb"
)

// decoder reads a section back: the batch that it was made of may be gone.
type decoder struct {
	duramenpb.SectionDecoder
	b duramenpb.Batch
}

type decoderPool struct{ pool sync.Pool }

func (p *decoderPool) get() *decoder {
	if d, ok := p.pool.Get().(*decoder); ok {
		return d
	}
	return &decoder{}
}

func (p *decoderPool) put(d *decoder) {
	b := &d.b
	clear(b.Series)
	clear(b.Histograms)
	clear(b.Exemplars)
	clear(b.Metadata)
	*b = duramenpb.Batch{
		Series: b.Series[:0], Floats: b.Floats[:0], Histograms: b.Histograms[:0], Exemplars: b.Exemplars[:0],
		Metadata: b.Metadata[:0],
	}
	p.pool.Put(d)
}

// resend sends a failed section once more: to the same member, or, when the ring has changed, what the member is not to
// have any more to those that are.
func (p *push) resend(s *section) {
	p.r.metrics.retries.WithLabelValues(retryFailed).Inc()
	s.err = nil
	to := map[int32]*member{}
	if v := p.r.view(); v != p.placement.view {
		if m := v.member(s.to.number); m != nil {
			s.to = m // maybe at another address
		}
		to = p.movedTo(s, v)
	}
	p.mu.Lock()
	p.ledger.again(s.items)
	p.mu.Unlock()
	if len(to) == 0 {
		p.launch([]*section{s})
		return
	}
	p.r.metrics.retries.WithLabelValues(retryMoved).Inc()
	var picks []int32
	for j := range s.handles {
		picks = append(picks, int32(j))
	}
	fresh, lost := p.r.relabel(s, picks, func(j int32) *member {
		if m := to[s.items[j]]; m != nil {
			return m
		}
		return s.to
	})
	p.mu.Lock()
	p.ledger.failed(lost)
	p.ledger.failed(s.items[len(s.handles):]) // metadata is not worth the trouble
	p.mu.Unlock()
	p.launch(fresh)
	s.release()
}

// resendStale sends again, with labels, the series of a section whose references the member does not know.
func (p *push) resendStale(s *section) {
	p.r.metrics.retries.WithLabelValues(retryStale).Inc()
	fresh, lost := p.r.relabel(s, s.stale, func(int32) *member { return s.to })
	p.mu.Lock()
	p.ledger.failed(lost)
	p.mu.Unlock()
	p.launch(fresh)
	s.release()
}

// resendLate is resendStale for a section that nobody waits for. It takes the section over and releases it.
func (r *Replicator) resendLate(s *section) {
	go func() { // Counted by outlive, which Close waits for.
		defer r.end()
		defer s.release()
		r.metrics.retries.WithLabelValues(retryStale).Inc()
		fresh, _ := r.relabel(s, s.stale, func(int32) *member { return s.to })
		if len(fresh) == 0 {
			return
		}
		c := &sends{}
		c.ctx, c.cancel = context.WithTimeout(context.WithoutCancel(s.sends.ctx), r.cfg.LateTimeout)
		c.open.Store(1)
		defer c.end()
		r.outlive(len(fresh))
		for _, f := range fresh {
			r.addLate(f, f.accounted)
			f.send(c)
		}
	}()
}

// relabel makes new sections of some of a section's series, with labels. lost are the items whose labels nobody knows.
func (r *Replicator) relabel(s *section, picks []int32, to func(j int32) *member) (fresh []*section, lost []int32) {
	d := r.decoders.get()
	defer r.decoders.put(d)
	if err := d.Decode(s.buf, &d.b); err != nil || len(d.b.Series) != len(s.handles) {
		r.log.Error("section cannot be read back", "tenant", s.table.id, "err", err)
		for _, j := range picks {
			lost = append(lost, s.items[j])
		}
		return nil, lost
	}
	open := map[uint32]*section{}
	for _, j := range picks {
		series := &d.b.Series[j]
		lset, known := series.Labels, true
		if series.Ref != 0 {
			lset, known = s.table.labelsOf(s.handles[j])
		}
		if !known {
			lost = append(lost, s.items[j])
			continue
		}
		m := to(j)
		into := open[m.number]
		if into != nil && into.enc.Full() {
			into.finish()
			into = nil
		}
		if into == nil {
			into = r.sections.get(r, s.table, m)
			into.begin(s.table.present(m.number))
			open[m.number] = into
			fresh = append(fresh, into)
		}
		into.tries = s.tries
		into.copy(d, j, s.items[j], s.handles[j], lset)
	}
	for _, into := range open {
		into.finish()
	}
	return fresh, lost
}

// copy adds series j of a decoded section, with its labels.
func (s *section) copy(d *decoder, j, i int32, h handle, lset labels.Labels) {
	var from duramenpb.Series
	if j > 0 {
		from = d.b.Series[j-1]
	}
	series := &d.b.Series[j]
	s.series(i, h, 0, lset)
	s.samples(d.b.Floats[from.FloatsEnd:series.FloatsEnd], d.b.Histograms[from.HistogramsEnd:series.HistogramsEnd],
		d.b.Exemplars[from.ExemplarsEnd:series.ExemplarsEnd])
}

// present returns what is known of a member's TSDB.
func (t *table) present(number uint32) life {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.lifeOf(number)
}

func (v *view) member(number uint32) *member {
	if int(number) < len(v.members) {
		return v.members[number]
	}
	return nil
}

// movedTo returns the items of a failed section that are undecided and belong to another member in v.
//
// A sample counts by zones: whoever reads sees each zone in full, whichever of its members has the sample. So another
// member of the zone takes the place of the one that failed, and so does one of a zone that has none of the others.
func (p *push) movedTo(s *section, v *view) map[int32]*member {
	next := p.table.place(v, p.placement.shard)
	out := map[int32]*member{}
	for j, i := range s.items[:len(s.handles)] {
		it := &p.ledger.items[i]
		if p.isSettled(it) {
			continue
		}
		part, ok := p.partitionOf(s.handles[j], it)
		if !ok {
			continue
		}
		wanted, err := next.replicas(nil, part)
		if err != nil || slices.Contains(wanted, s.to.number) {
			continue
		}
		have := p.moved[i]
		if have == nil {
			have, _ = p.placement.replicas(nil, part)
		}
		if m := substitute(s.to, have, wanted, p.placement.view, v); m != nil {
			out[i] = m
			if p.moved == nil {
				p.moved = map[int32][]uint32{}
			}
			have = slices.Clone(have)
			have[slices.Index(have, s.to.number)] = m.number
			p.moved[i] = have
		}
	}
	return out
}

// substitute finds a member of wanted that can take the place of gone in have.
func substitute(gone *member, have, wanted []uint32, old, now *view) *member {
	for _, n := range wanted {
		m := now.member(n)
		if m == nil || slices.Contains(have, n) {
			continue
		}
		taken := slices.ContainsFunc(have, func(h uint32) bool {
			other := now.member(h)
			if other == nil {
				other = old.member(h)
			}
			return h != gone.number && other != nil && other.zone == m.zone
		})
		if !taken {
			return m
		}
	}
	return nil
}

func (p *push) isSettled(it *item) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return it.settled
}

// partitionOf returns the partition of an item's series.
func (p *push) partitionOf(h handle, it *item) (uint16, bool) {
	if s := &p.b.Series[it.series]; s.Ref == 0 {
		return p.placement.partition(labels.StableHash(s.Labels)), true
	}
	p.table.mu.RLock()
	defer p.table.mu.RUnlock()
	e, _ := p.table.find(h)
	if e == nil {
		return 0, false
	}
	return e.partition, true
}
