package distributor

import (
	"errors"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/distributor/rw1"
	"github.com/duramendb/duramen/distributor/rw2"
	"github.com/duramendb/duramen/distributor/wire"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// parseLabels returns labels as they were sent, as views of the body; they are valid until the next call.
func (r *request) parseLabels(s wire.Span) (ls []labels.Label, err error) {
	if r.format == format2 {
		ls, err = rw2.AppendLabels(r.labels[:0], &r.Request, s)
	} else {
		ls, err = rw1.AppendLabels(r.labels[:0], r.Buf, s)
	}
	r.labels = ls[:0]
	return ls, err
}

// buildLabels parses, validates and builds the labels of series i. A refusal comes back as reason and text, an error
// means that the whole request is malformed or needs too much memory.
func (r *request) buildLabels(i int, limits labelLimits) (labels.Labels, duramenpb.Reason, func() string, error) {
	ls, err := r.parseLabels(r.Labels[i])
	if err != nil {
		var badRef *rw2.BadRefError
		if errors.As(err, &badRef) {
			return labels.Labels{}, reasonBadReference, badRef.Error, nil
		}
		return labels.Labels{}, "", nil, r.malformed(err)
	}
	ls, p := checkLabels(ls, limits)
	if p != nil {
		return labels.Labels{}, p.reason, p.text, nil
	}
	lset, err := r.build(ls)
	return lset, "", nil, err
}

// build makes a label set that shares nothing with the body.
//
// A request of format 2.0 names a symbol as often as it likes, so that a small body can stand for labels of any size.
// All labels of a request together may take as much as a body of format 1.0 could carry.
func (r *request) build(ls []labels.Label) (labels.Labels, error) {
	r.builder.Reset()
	n := 0
	for _, l := range ls {
		n += len(l.Name) + len(l.Value) + 4
		r.builder.Add(l.Name, l.Value)
	}
	if r.built += n; r.built > r.limit {
		return labels.Labels{}, errkind.New(errkind.TooLarge,
			"the labels of the request take more than %d bytes, the limit max_request_bytes", r.limit)
	}
	if r.built > r.builtReserved {
		step := max(n, 1<<20)
		if err := r.reserve(int64(step)); err != nil {
			return labels.Labels{}, err
		}
		r.builtReserved += step
	}
	return r.builder.Labels(), nil
}

func (r *request) malformed(err error) error {
	message := rw1.Message
	if r.format == format2 {
		message = rw2.Message
	}
	return errkind.New(errkind.Invalid, "the body is not a %s: %w", message, err)
}

// describe names series i for an example in an answer.
func (r *request) describe(i int) string {
	ls, err := r.parseLabels(r.Labels[i])
	if err != nil {
		return "a series without readable labels"
	}
	var b strings.Builder
	b.WriteByte('{')
	for j, l := range ls {
		if j > 0 {
			b.WriteString(", ")
		}
		if b.Len() > maxExample/2 {
			b.WriteString("…")
			break
		}
		if model.LegacyValidation.IsValidLabelName(l.Name) && len(l.Name) <= maxShown {
			b.WriteString(l.Name)
		} else {
			b.WriteString(show(l.Name))
		}
		b.WriteByte('=')
		b.WriteString(show(l.Value))
	}
	b.WriteByte('}')
	return b.String()
}

// samplesOf returns where the samples of series i begin in the batch as it was decoded.
func (r *request) samplesOf(i int) (floats, histograms, exemplars int) {
	if i == 0 {
		return 0, 0, 0
	}
	s := &r.Batch.Series[i-1]
	return s.FloatsEnd, s.HistogramsEnd, s.ExemplarsEnd
}

// refuseSeries takes series i out of the request and counts its samples.
func (r *request) refuseSeries(i int, reason duramenpb.Reason, text func() string) {
	floats, histograms, _ := r.samplesOf(i)
	s := &r.Batch.Series[i]
	n := s.FloatsEnd - floats + s.HistogramsEnd - histograms
	r.fates[i] = gone
	r.dirty = true
	r.refused.add(reason, n, func() string {
		detail := text() // before describe, which reuses the memory of the labels
		return r.describe(i) + ": " + detail
	})
}
