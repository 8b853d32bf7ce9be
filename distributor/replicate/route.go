package replicate

import (
	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/duramenpb"
)

const (
	// touchBlock is how many series are looked up at a time, so that the memory's latency is met once.
	touchBlock = 16
	// maxItemFloats, maxItemHistograms and maxItemExemplars bound an item, so that a section can be bounded.
	maxItemFloats     = 16 << 10
	maxItemHistograms = 64
	maxItemExemplars  = 4 << 10
)

// route encodes the batch into one section for each member, or several when it is large. Series whose handles are not
// known go into res.Stale.
func (p *push) route(res *duramenpb.PushResult) error {
	r := p.r
	v := r.view()
	p.table = r.tables.get(p.id, v.ring.RF(), p.minute)
	p.placement = p.table.place(v, r.limits.IngestionTenantShardSize(p.id))
	if n := len(v.members); len(p.opened) < n {
		p.opened = append(p.opened, make([]*section, n-len(p.opened))...)
	}
	p.number()
	if len(p.labelled) > 0 {
		if err := p.addLabelled(); err != nil {
			return err
		}
	}
	if err := p.encodeAll(res); err != nil {
		return err
	}
	if err := p.addMetadata(); err != nil {
		return err
	}
	for i, s := range p.opened {
		if s != nil {
			p.close(s)
			p.opened[i] = nil
		}
	}
	if len(p.labelled) > 0 {
		if evicted := r.tables.keepBudget(p.minute); evicted > 0 {
			r.metrics.evictions.Add(float64(evicted))
		}
	}
	return nil
}

// number takes over the handles of the batch.
func (p *push) number() {
	for i := range p.b.Series {
		ref := p.b.Series[i].Ref
		if ref == 0 {
			p.labelled = append(p.labelled, int32(i))
		}
		p.handles = append(p.handles, handle(ref))
	}
}

// addLabelled finds or adds the entries of the series with labels.
func (p *push) addLabelled() error {
	t := p.table
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range p.labelled {
		h := t.add(p.b.Series[i].Labels, p.minute, p.placement)
		p.handles[i] = h
		if e, replicas := t.find(h); e != nil {
			if err := t.settle(e, replicas, p.placement); err != nil {
				return err
			}
		}
	}
	return nil
}

// encodeAll encodes the series: first those whose places are known, under a lock that pushes share, then the others.
func (p *push) encodeAll(res *duramenpb.PushResult) error {
	if err := p.encodeKnown(res); err != nil || len(p.unplaced) == 0 {
		return err
	}
	if err := p.settle(); err != nil {
		return err
	}
	t := p.table
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, i := range p.unplaced {
		if e, replicas := t.find(p.handles[i]); e != nil && e.placed == p.placement.no {
			p.encode(i, e.replicas, replicas, e.labels)
			continue
		}
		if p.b.Series[i].Ref == 0 {
			if err := p.encodeUnknown(i); err != nil {
				return err
			}
			continue
		}
		// Another push has placed it after another ring, or it was evicted: to ask for its labels is always right.
		p.handles[i] = 0
		res.Stale = append(res.Stale, int(i))
	}
	return nil
}

// settle places the entries that followed an older placement.
func (p *push) settle() error {
	t := p.table
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range p.unplaced {
		if e, replicas := t.find(p.handles[i]); e != nil {
			if err := t.settle(e, replicas, p.placement); err != nil {
				return err
			}
		}
	}
	return nil
}

// encodeKnown encodes what the table can place at once. Hot.
func (p *push) encodeKnown(res *duramenpb.PushResult) error {
	t := p.table
	t.mu.RLock()
	defer t.mu.RUnlock()
	p.incarnation = t.incarnation
	known := p.b.Incarnation == t.incarnation
	for from := 0; from < len(p.handles); from += touchBlock {
		to := min(from+touchBlock, len(p.handles))
		for _, h := range p.handles[from:to] {
			p.touched += t.touch(h)
		}
		for i := from; i < to; i++ {
			labelled := p.b.Series[i].Ref == 0
			var e *entry
			var replicas []replica
			if labelled || known {
				e, replicas = t.find(p.handles[i])
			}
			switch {
			case e == nil && labelled:
				if err := p.encodeUnknown(int32(i)); err != nil {
					return err
				}
			case e == nil:
				p.handles[i] = 0
				res.Stale = append(res.Stale, i)
			case e.placed != p.placement.no:
				p.unplaced = append(p.unplaced, int32(i))
			default:
				if e.seen.Load() != p.minute {
					e.seen.Store(p.minute)
				}
				p.encode(int32(i), e.replicas, replicas, e.labels)
			}
		}
	}
	return nil
}

// encodeUnknown encodes a series with labels for which the table has no room.
func (p *push) encodeUnknown(i int32) error {
	lset := p.b.Series[i].Labels
	var numbers [maxReplicas]uint32
	found, err := p.placement.replicas(numbers[:0], p.placement.partition(labels.StableHash(lset)))
	if err != nil {
		return err
	}
	var replicas [maxReplicas]replica
	for k, n := range found {
		replicas[k] = replica{member: n}
	}
	p.handles[i] = 0
	p.encode(i, uint8(len(found)), replicas[:len(found)], lset)
	return nil
}

// encode writes series i for each of its replicas: by reference where that is known, else with labels. The caller holds
// the table's lock.
func (p *push) encode(i int32, n uint8, replicas []replica, lset labels.Labels) {
	s := &p.b.Series[i]
	it := item{
		series: i, floatsEnd: int32(s.FloatsEnd), histogramsEnd: int32(s.HistogramsEnd),
		exemplarsEnd: int32(s.ExemplarsEnd), replicas: n,
	}
	if i > 0 {
		before := &p.b.Series[i-1]
		it.floats, it.histograms, it.exemplars = int32(before.FloatsEnd), int32(before.HistogramsEnd),
			int32(before.ExemplarsEnd)
	}
	for it.floatsEnd-it.floats > maxItemFloats || it.histogramsEnd-it.histograms > maxItemHistograms ||
		it.exemplarsEnd-it.exemplars > maxItemExemplars {
		part := it
		part.floatsEnd = min(it.floatsEnd, it.floats+maxItemFloats)
		part.histogramsEnd = min(it.histogramsEnd, it.histograms+maxItemHistograms)
		part.exemplarsEnd = min(it.exemplarsEnd, it.exemplars+maxItemExemplars)
		p.encodeItem(&part, replicas[:n], lset)
		it.floats, it.histograms, it.exemplars = part.floatsEnd, part.histogramsEnd, part.exemplarsEnd
	}
	p.encodeItem(&it, replicas[:n], lset)
}

func (p *push) encodeItem(it *item, replicas []replica, lset labels.Labels) {
	b := p.b
	i := int32(len(p.ledger.items))
	p.ledger.items = append(p.ledger.items, *it)
	floats := b.Floats[it.floats:it.floatsEnd]
	for k := range replicas {
		at := &replicas[k]
		s := p.sectionOf(at.member)
		ref := at.ref
		if at.life != s.life.no || s.life.incarnation == 0 {
			ref = 0
		}
		s.series(i, p.handles[it.series], ref, lset)
		if it.histogramsEnd == it.histograms && it.exemplarsEnd == it.exemplars { // nearly always
			for n := range floats {
				s.enc.Float(floats[n].T, floats[n].ST, floats[n].V)
			}
			s.floats += len(floats)
			continue
		}
		s.samples(floats, b.Histograms[it.histograms:it.histogramsEnd], b.Exemplars[it.exemplars:it.exemplarsEnd])
	}
}

// sectionOf returns the section that is being written for a member. The caller holds the table's lock.
func (p *push) sectionOf(number uint32) *section {
	s := p.opened[number]
	if s != nil && !s.enc.Full() {
		return s
	}
	if s != nil {
		p.close(s)
	}
	s = p.r.sections.get(p.r, p.table, p.placement.view.members[number])
	s.begin(p.table.lifeOf(number))
	p.opened[number] = s
	return s
}

// close ends the encoding of a section.
func (p *push) close(s *section) {
	s.finish()
	p.fresh = append(p.fresh, s)
}

// addMetadata gives the metadata of each family to the replicas of one partition, which its name decides: one member in
// each zone then, so that whoever reads as many zones in full as for samples finds it. It is best effort, as metadata is.
func (p *push) addMetadata() error {
	var numbers [maxReplicas]uint32
	for m := range p.b.Metadata {
		meta := p.b.Metadata[m]
		found, err := p.placement.replicas(numbers[:0], p.placement.partition(hashOf(meta.Family)))
		if err != nil {
			return err
		}
		i := int32(len(p.ledger.items))
		p.ledger.items = append(p.ledger.items, item{series: ^int32(m), replicas: uint8(len(found))})
		for _, n := range found {
			s := p.metadataSection(n)
			s.items = append(s.items, i)
			s.enc.Metadata(meta)
		}
	}
	return nil
}

func (p *push) metadataSection(number uint32) *section {
	p.table.mu.RLock()
	defer p.table.mu.RUnlock()
	return p.sectionOf(number)
}

// hashOf is FNV-1a: all distributors have to find the same place for a family.
func hashOf(family string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(family) {
		h = (h ^ uint64(family[i])) * 1099511628211
	}
	return h
}
