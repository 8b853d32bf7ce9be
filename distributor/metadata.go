package distributor

import (
	"strings"
	"unicode/utf8"

	"github.com/prometheus/common/model"

	"github.com/duramendb/duramen/distributor/rw2"
	"github.com/duramendb/duramen/distributor/wire"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// Types of metric families; both formats number them alike.
const (
	typeHistogram      = 3
	typeGaugeHistogram = 4
	typeSummary        = 5
)

var typeNames = [...]string{"unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"}

const (
	// maxHelp bounds the text of a family's metadata in bytes, as the peers do: it is memory that every sender can fill.
	maxHelp = 1024
	maxUnit = 128
)

// addMetadata passes on the metadata of a request of format 1.0, and of format 2.0 that of series which are new or
// whose metadata changed: the cache remembers what was passed on, since senders repeat it with every sample.
func (r *request) addMetadata() error {
	for _, m := range r.Metadata {
		if err := r.appendMetadata(&r.Batch, m.Type, r.text(m.Family), r.text(m.Help), r.text(m.Unit)); err != nil {
			return err
		}
	}
	if r.format == format1 {
		return nil
	}
	for _, list := range [...][]int32{r.slow, r.tell} {
		for _, i := range list {
			if r.fates[i] == gone {
				continue
			}
			if err := r.addSeriesMetadata(&r.Batch, int(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// addSeriesMetadata adds the metadata of series i of a request of format 2.0 to b, if it has any.
func (r *request) addSeriesMetadata(b *duramenpb.Batch, i int) error {
	if r.metas[i] == 0 {
		return nil
	}
	m := r.SeriesMetadata[i]
	ls, err := r.parseLabels(r.Labels[i])
	if err != nil {
		return nil //nolint:nilerr // The series is refused for it, with its samples.
	}
	for _, l := range ls {
		if l.Name == model.MetricNameLabel {
			help, unit := rw2.Symbol(&r.Request, m.Help), rw2.Symbol(&r.Request, m.Unit)
			return r.appendMetadata(b, m.Type, familyOf(l.Value, m.Type), help, unit)
		}
	}
	return nil
}

// appendMetadata copies metadata into b, because receivers keep the strings. Long texts are cut. What repeats the entry
// before it is left out: the series of a family come together.
func (r *request) appendMetadata(b *duramenpb.Batch, typ int32, family, help, unit string) error {
	if family == "" || len(family) > maxHelp {
		r.d.metrics.dropped.WithLabelValues("metadata").Inc()
		return nil
	}
	help, unit = cut(help, maxHelp), cut(unit, maxUnit)
	m := duramenpb.Metadata{Family: family, Type: typeNames[0], Help: help, Unit: unit}
	if typ >= 0 && int(typ) < len(typeNames) {
		m.Type = typeNames[typ]
	}
	if n := len(b.Metadata); n > 0 && b.Metadata[n-1] == m {
		return nil
	}
	if r.built += len(family) + len(help) + len(unit); r.built > r.limit {
		return errkind.New(errkind.TooLarge,
			"labels and metadata of the request take more than %d bytes, the limit max_request_bytes", r.limit)
	}
	m.Family, m.Help, m.Unit = strings.Clone(family), strings.Clone(help), strings.Clone(unit)
	b.Metadata = append(b.Metadata, m)
	return nil
}

// familyOf returns the family of a metric by its name: the parts of histograms and summaries have suffixes.
func familyOf(name string, typ int32) string {
	var suffixes []string
	switch typ {
	case typeHistogram:
		suffixes = []string{"_bucket", "_count", "_sum"}
	case typeGaugeHistogram:
		suffixes = []string{"_bucket", "_gcount", "_gsum"}
	case typeSummary:
		suffixes = []string{"_count", "_sum"}
	}
	for _, s := range suffixes {
		if family, ok := strings.CutSuffix(name, s); ok && family != "" {
			return family
		}
	}
	return name
}

// cut returns the first n bytes of s, or a few less when a character would be cut.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func (r *request) text(s wire.Span) string { return string(r.Buf[s.From:s.To]) }
