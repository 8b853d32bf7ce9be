package distributor

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/distributor/wire"
	"github.com/duramendb/duramen/duramenpb"
)

// checkSamples finds what has to be taken out of the batch besides whole series: samples at impossible times,
// histograms that are inconsistent, series without anything.
func (r *request) checkSamples() {
	b := &r.Batch
	for i := range b.Floats {
		if t := b.Floats[i].T; t > r.maxT || t < oldestTimestamp {
			r.dirty = true
			break
		}
	}
	if len(b.Histograms) > 0 {
		r.checkHistograms()
	}
	floats, histograms, exemplars := 0, 0, 0
	for i := range b.Series {
		s := &b.Series[i]
		if s.FloatsEnd == floats && s.HistogramsEnd == histograms && s.ExemplarsEnd == exemplars {
			r.dirty = true
		}
		floats, histograms, exemplars = s.FloatsEnd, s.HistogramsEnd, s.ExemplarsEnd
	}
}

func (r *request) checkHistograms() {
	maxBuckets := r.d.limits.MaxHistogramBuckets(r.tenant.id)
	j := 0
	for i := range r.Batch.Series {
		for end := r.Batch.Series[i].HistogramsEnd; j < end; j++ {
			h := &r.Batch.Histograms[j]
			if r.fates[i] == gone {
				continue
			}
			if h.T > r.maxT || h.T < oldestTimestamp {
				r.dirty = true // compact counts it.
				continue
			}
			if reason, detail := checkHistogram(h, maxBuckets); reason != "" {
				t := h.T
				r.refused.add(reason, 1, func() string { return r.describe(i) + " at " + timeText(t) + ": " + detail })
				h.H, h.FH = nil, nil
				r.dirty = true
			}
		}
	}
}

// oldestTimestamp is the first time that the query API can name, in milliseconds since the Unix epoch. What is older
// could never be read, and near the end of the integers it wraps a TSDB's bounds around: as a tenant's first sample it
// would make every later one too old.
const oldestTimestamp = (math.MinInt64/1000 + 62135596801) * 1000

// refuseTime reports whether t is outside what is accepted now, and counts the sample of series i if so.
func (r *request) refuseTime(i int, t int64) bool {
	switch {
	case t > r.maxT:
		r.refused.add(duramenpb.ReasonTooFarInFuture, 1, func() string {
			return fmt.Sprintf("%s: %s is ahead of the newest time accepted now, %s (limit future_tolerance)",
				r.describe(i), timeText(t), timeText(r.maxT))
		})
	case t < oldestTimestamp:
		r.refused.add(duramenpb.ReasonTooOld, 1, func() string {
			return fmt.Sprintf("%s: %d ms is before the oldest time that a query can name, %d ms", r.describe(i), t,
				int64(oldestTimestamp))
		})
	default:
		return false
	}
	return true
}

func timeText(t int64) string {
	if at := time.UnixMilli(t).UTC(); at.Year() >= 1 && at.Year() <= 9999 {
		return at.Format("2006-01-02T15:04:05.000Z")
	}
	return strconv.FormatInt(t, 10)
}

// compact takes out of the batch what checkSamples and refuseSeries found. Order is kept.
func (r *request) compact() {
	b := &r.Batch
	var (
		f, h, e        int // read
		nf, nh, ne, ns int // written
	)
	r.origin, r.compacted = r.origin[:0], true
	for i := range b.Series {
		s := b.Series[i]
		if r.fates[i] == gone {
			f, h, e = s.FloatsEnd, s.HistogramsEnd, s.ExemplarsEnd
			continue
		}
		f0, h0, e0 := nf, nh, ne
		for ; f < s.FloatsEnd; f++ {
			if r.refuseTime(i, b.Floats[f].T) {
				continue
			}
			b.Floats[nf] = b.Floats[f]
			nf++
		}
		for ; h < s.HistogramsEnd; h++ {
			switch {
			case r.refuseTime(i, b.Histograms[h].T):
				continue
			case b.Histograms[h].H == nil && b.Histograms[h].FH == nil:
				continue
			}
			b.Histograms[nh] = b.Histograms[h]
			nh++
		}
		for ; e < s.ExemplarsEnd; e++ {
			if r.unusable[e] {
				continue
			}
			b.Exemplars[ne] = b.Exemplars[e]
			ne++
		}
		if nf == f0 && nh == h0 && ne == e0 {
			r.fates[i] = gone
			continue
		}
		s.FloatsEnd, s.HistogramsEnd, s.ExemplarsEnd = nf, nh, ne
		b.Series[ns] = s
		ns++
		r.origin = append(r.origin, int32(i))
	}
	clear(b.Series[ns:])
	clear(b.Histograms[nh:])
	clear(b.Exemplars[ne:])
	b.Series, b.Floats = b.Series[:ns], b.Floats[:nf]
	b.Histograms, b.Exemplars = b.Histograms[:nh], b.Exemplars[:ne]
}

// originOf returns which series of the body series j of the batch was.
func (r *request) originOf(j int) int {
	if r.compacted {
		return int(r.origin[j])
	}
	return j
}

// buildExemplars builds the labels of the exemplars. One that cannot be used is dropped and counted; it never fails
// the request, since an exemplar is not covered by what an answer promises.
func (r *request) buildExemplars() error {
	r.unusable = r.unusable[:0]
	limits := r.labelLimits()
	for i := range r.Exemplars {
		e := &r.Exemplars[i]
		lset, usable, err := r.exemplarLabels(e.Labels, limits)
		if err != nil {
			return err
		}
		usable = usable && e.T <= r.maxT && e.T >= oldestTimestamp
		if !usable {
			r.dirty = true
			r.d.metrics.dropped.WithLabelValues("exemplar").Inc()
		}
		r.unusable = append(r.unusable, !usable)
		r.Batch.Exemplars = append(r.Batch.Exemplars, duramenpb.Exemplar{T: e.T, V: e.V, Labels: lset})
	}
	return nil
}

func (r *request) exemplarLabels(s wire.Span, limits labelLimits) (lset labels.Labels, usable bool, err error) {
	ls, err := r.parseLabels(s)
	switch {
	case err != nil && r.format == format1:
		return lset, false, r.malformed(err)
	case err != nil: // A reference that names no symbol.
		return lset, false, nil
	}
	ls, p := checkPairs(ls, limits)
	if p != nil {
		return lset, false, nil
	}
	lset, err = r.build(ls)
	return lset, true, err
}
