package query

import (
	"encoding/csv"
	"io"
	"slices"

	"github.com/prometheus/common/model"
)

// writeCSV writes one line for each sample: a column for each label name of the answer, sorted, then time (UTC) and
// value. A histogram's value is its one-line form. A label that a series lacks is empty, as it is to PromQL.
func writeCSV(w io.Writer, value model.Value) error {
	names := labelNames(value)
	out := csv.NewWriter(w)
	header := make([]string, 0, len(names)+2)
	for _, n := range names {
		header = append(header, string(n))
	}
	if err := out.Write(append(header, "time", "value")); err != nil {
		return err
	}
	var err error
	line := make([]string, 0, len(names)+2)
	write := func(m model.Metric, t model.Time, text string) {
		line = line[:0]
		for _, n := range names {
			line = append(line, string(m[n]))
		}
		if e := out.Write(append(line, stamp(t.Time()), text)); e != nil && err == nil {
			err = e
		}
	}
	switch v := value.(type) {
	case model.Vector:
		for _, s := range v {
			text := number(float64(s.Value))
			if s.Histogram != nil {
				text = compact(s.Histogram)
			}
			write(s.Metric, s.Timestamp, text)
		}
	case model.Matrix:
		for _, s := range v {
			eachPoint(s, func(t model.Time, text string) { write(s.Metric, t, text) })
		}
	case *model.Scalar:
		write(nil, v.Timestamp, number(float64(v.Value)))
	case *model.String:
		write(nil, v.Timestamp, v.Value)
	}
	out.Flush()
	if err == nil {
		err = out.Error()
	}
	return err
}

// labelNames returns the names of all labels in the answer, sorted.
func labelNames(value model.Value) []model.LabelName {
	seen := map[model.LabelName]bool{}
	add := func(m model.Metric) {
		for n := range m {
			seen[n] = true
		}
	}
	switch v := value.(type) {
	case model.Vector:
		for _, s := range v {
			add(s.Metric)
		}
	case model.Matrix:
		for _, s := range v {
			add(s.Metric)
		}
	}
	names := make([]model.LabelName, 0, len(seen))
	for n := range seen {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
