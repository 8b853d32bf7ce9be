package ingester

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// lateSample is a sample that is not the newest of its series.
type lateSample struct {
	place
	ref storage.SeriesRef
	t   int64
}

// lateGroup are late samples of one series at one timestamp, in the order of the batch: the first is tried, the others
// are judged against what became of it.
type lateGroup []lateSample

// settleRounds bounds how often samples that stock took are looked for. The first round finds them; more are needed only
// when Commit drops what Append took.
const settleRounds = 3

// settleLate decides on the late samples once all others are committed: one that is held already is a success, one at
// whose timestamp another value is held is refused, and the rest is appended out of order.
func (p *pusher) settleLate() error {
	var again []lateSample
	for round := 0; len(p.late) > 0 || len(again) > 0; round++ {
		late, err := p.resolveLate(again)
		if err != nil {
			return err
		}
		p.late = p.late[:0]
		groups, err := p.lookUp(late)
		if err != nil {
			return err
		}
		if round == settleRounds {
			p.giveUp(groups)
			return nil
		}
		if again, err = p.appendLate(groups); err != nil {
			return err
		}
	}
	return nil
}

// giveUp refuses what stock took and dropped again and again.
func (p *pusher) giveUp(groups []lateGroup) {
	for _, g := range groups {
		for _, s := range g {
			p.refuse(s.place, duramenpb.ReasonOutOfOrder, "the TSDB took the sample and did not keep it")
		}
	}
}

// resolveLate gives each late sample its series' reference and sorts all by series and time, keeping the batch's order
// among equals. By-reference series that are not there any more become stale.
func (p *pusher) resolveLate(again []lateSample) ([]lateSample, error) {
	index, err := p.life.db.Head().Index()
	if err != nil {
		return nil, err
	}
	defer func() { _ = index.Close() }()
	app := p.life.db.AppenderV2(context.Background())
	defer func() { _ = app.Rollback() }() // it holds nothing, so it logs nothing
	refOf, _ := app.(storage.GetRef)

	var (
		builder labels.ScratchBuilder
		out     = append(make([]lateSample, 0, len(p.late)+len(again)), again...)
		known   = map[int32]storage.SeriesRef{}
	)
	for _, at := range p.late {
		ref, ok := known[at.series]
		if !ok {
			s := &p.b.Series[at.series]
			if ref = storage.SeriesRef(p.r.Refs[at.series]); ref == 0 && refOf != nil {
				ref, _ = refOf.GetRef(s.Labels, s.Labels.Hash())
			}
			if s.Ref != 0 && errors.Is(index.Series(ref, &builder, nil), storage.ErrNotFound) {
				ref = 0
				if err := p.vanished(int(at.series)); err != nil {
					return nil, err
				}
			}
			p.r.Refs[at.series], known[at.series] = uint64(ref), ref
		}
		if ref == 0 && p.b.Series[at.series].Ref != 0 {
			continue // stale as a whole
		}
		t, _, _, _, _ := p.at(at)
		out = append(out, lateSample{place: at, ref: ref, t: t})
	}
	slices.SortStableFunc(out, func(a, b lateSample) int {
		if c := cmp.Compare(a.ref, b.ref); c != 0 {
			return c
		}
		if a.ref == 0 { // not in the head: told apart by their place
			if c := cmp.Compare(a.series, b.series); c != 0 {
				return c
			}
		}
		return cmp.Compare(a.t, b.t)
	})
	return out, nil
}

// vanished makes a series stale whose reference is unknown though no Append said so. That is right only when nothing of
// it was stored.
func (p *pusher) vanished(series int) error {
	floats, histograms, lateFloats, lateHistograms := 0, 0, 0, 0
	if series > 0 {
		floats, histograms = p.b.Series[series-1].FloatsEnd, p.b.Series[series-1].HistogramsEnd
	}
	for _, at := range p.late {
		switch {
		case int(at.series) != series:
		case at.histogram:
			lateHistograms++
		default:
			lateFloats++
		}
	}
	s := &p.b.Series[series]
	if lateFloats != s.FloatsEnd-floats || lateHistograms != s.HistogramsEnd-histograms {
		return errkind.Wrap(errkind.Unavailable, errVanished)
	}
	p.r.Stale = append(p.r.Stale, series)
	return nil
}

// lookUp settles what is held already and returns the rest by series and timestamp.
func (p *pusher) lookUp(late []lateSample) ([]lateGroup, error) {
	if len(late) == 0 {
		return nil, nil
	}
	lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
	for i := range late {
		lo, hi = min(lo, late[i].t), max(hi, late[i].t)
	}
	look, err := p.life.openLookup(lo, hi)
	if err != nil {
		return nil, err
	}
	defer look.close()
	m := p.life.tenant.set.metrics
	var groups []lateGroup
	for i, begin := 0, 0; i < len(late); i++ {
		s := late[i]
		if n := len(groups); n > 0 && i == begin+len(groups[n-1]) && sameSample(late[begin], s) {
			groups[n-1] = late[begin : i+1] // nothing is held at this series and timestamp yet
			continue
		}
		found, err := look.find(s.ref, p.b.Series[s.series].Labels, p.sampleAt(s.place))
		if err != nil {
			return nil, fmt.Errorf("look up late sample: %w", err)
		}
		switch found {
		case heldEqual:
			p.stored(s.place)
		case heldOther:
			p.refuseOther(s.place)
		default:
			if s.taken {
				m.silentDrops.Inc()
			}
			begin = i
			groups = append(groups, late[i:i+1])
		}
	}
	m.lookups.WithLabelValues("reference").Add(float64(look.byRef))
	m.lookups.WithLabelValues("select").Add(float64(look.bySelect))
	return groups, nil
}

func sameSample(a, b lateSample) bool {
	return a.ref == b.ref && a.t == b.t && (a.ref != 0 || a.series == b.series)
}

// appendLate appends the first of each group out of order and commits. It returns the others, to be judged against it.
func (p *pusher) appendLate(groups []lateGroup) (again []lateSample, err error) {
	if len(groups) == 0 {
		return nil, nil
	}
	p.open()
	for _, g := range groups {
		first := g[0]
		t, st, v, h, fh := p.at(first.place)
		ref, err := p.app.Append(first.ref, p.b.Series[first.series].Labels, st, t, v, h, fh, storage.AOptions{})
		if ref != 0 {
			p.r.Refs[first.series] = uint64(ref)
			first.taken = true
			p.queued = append(p.queued, first.place)
			again = append(again, g[1:]...)
			continue
		}
		if errors.Is(err, tsdb.ErrInvalidSample) && p.b.Series[first.series].Ref != 0 {
			return nil, errkind.Wrap(errkind.Unavailable, errVanished)
		}
		reason, detail, ok := p.whyNot(t, err)
		if !ok {
			return nil, err
		}
		for _, s := range g {
			p.refuse(s.place, reason, detail)
		}
	}
	p.life.oooPending.Store(true)
	return again, p.commit()
}

// whyNot turns stock's last word on a late sample into the reason of a refusal.
func (p *pusher) whyNot(t int64, err error) (duramenpb.Reason, string, bool) {
	newest := p.life.db.Head().MaxTime()
	window := p.life.tenant.set.limits.OutOfOrderWindow(p.life.tenant.id)
	age := time.Duration(newest-t) * time.Millisecond
	var limit *seriesLimitError
	switch {
	case errors.As(err, &limit):
		return duramenpb.ReasonSeriesLimit, limit.Error(), true
	case errors.Is(err, storage.ErrTooOldSample), errors.Is(err, storage.ErrOutOfBounds):
		return duramenpb.ReasonTooOld, fmt.Sprintf("sample is %s older than the tenant's newest, at %d ms; the out-of-order "+
			"window is %s", age, newest, window), true
	case errors.Is(err, storage.ErrOutOfOrderSample):
		return duramenpb.ReasonOutOfOrder, fmt.Sprintf("sample is older than the series' newest; the out-of-order window is %s",
			window), true
	case errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
		return duramenpb.ReasonDuplicate, detailOther, true
	case errors.Is(err, tsdb.ErrInvalidSample):
		return duramenpb.ReasonDuplicateLabel, err.Error(), true
	}
	return "", "", false
}

const detailOther = "another value is held at this timestamp"

func (p *pusher) refuseOther(at place) { p.refuse(at, duramenpb.ReasonDuplicate, detailOther) }
