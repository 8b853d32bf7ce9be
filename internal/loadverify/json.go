package loadverify

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
)

// scanner walks over one JSON document in memory without building it. The first error stays.
type scanner struct {
	data []byte
	at   int
	err  error
}

// maxDepth bounds the nesting of what is skipped.
const maxDepth = 64

func (s *scanner) fail(what string) {
	if s.err == nil {
		s.err = fmt.Errorf("byte %d of the answer: %s is expected", s.at, what)
	}
	s.at = len(s.data)
}

// peek returns the next byte that is no space, 0 at the end.
func (s *scanner) peek() byte {
	for s.at < len(s.data) {
		switch c := s.data[s.at]; c {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return c
		}
	}
	return 0
}

// take consumes a byte if it is the next one.
func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.at++
	return true
}

func (s *scanner) expect(c byte) {
	if !s.take(c) {
		s.fail(strconv.QuoteRune(rune(c)))
	}
}

// list calls element for each element between two brackets until one fails.
func (s *scanner) list(open, end byte, element func()) {
	s.expect(open)
	if s.take(end) {
		return
	}
	for s.err == nil {
		element()
		if s.take(end) {
			return
		}
		s.expect(',')
	}
}

// object calls field with each key; field consumes the value.
func (s *scanner) object(field func(key string)) {
	s.list('{', '}', func() {
		key := s.text()
		s.expect(':')
		if s.err == nil {
			field(key)
		}
	})
}

func (s *scanner) array(element func()) { s.list('[', ']', element) }

// raw consumes a string and returns it without its quotes; escaped says whether it has to be unquoted.
func (s *scanner) raw() (b []byte, escaped bool) {
	s.expect('"')
	from := s.at
	for ; s.at < len(s.data); s.at++ {
		switch s.data[s.at] {
		case '"':
			s.at++
			return s.data[from : s.at-1], escaped
		case '\\':
			escaped = true
			s.at++
		}
	}
	s.fail("the end of a string")
	return nil, false
}

func (s *scanner) text() string {
	from := s.at
	b, escaped := s.raw()
	if !escaped || s.err != nil {
		return string(b)
	}
	for s.data[from] != '"' {
		from++ // the spaces that raw passed over
	}
	var text string
	if err := json.Unmarshal(s.data[from:s.at], &text); err != nil {
		s.fail("a string")
	}
	return text
}

// number consumes a JSON number and returns its text.
func (s *scanner) number() []byte {
	s.peek()
	from := s.at
	for ; s.at < len(s.data); s.at++ {
		c := s.data[s.at]
		if (c < '0' || c > '9') && c != '-' && c != '+' && c != '.' && c != 'e' && c != 'E' {
			break
		}
	}
	if s.at == from {
		s.fail("a number")
	}
	return s.data[from:s.at]
}

// quoted consumes a float in a string, as the API writes values.
func (s *scanner) quoted() float64 {
	b, _ := s.raw()
	v, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		s.fail("a float in a string")
	}
	return v
}

// time consumes a time in seconds and returns milliseconds.
func (s *scanner) time() int64 {
	b := s.number()
	t, digits, fraction := int64(0), 0, -1
	for i, c := range b {
		switch {
		case c >= '0' && c <= '9':
			t, digits = t*10+int64(c-'0'), digits+1
		case c == '.' && fraction < 0:
			fraction = len(b) - i - 1
		default:
			digits = 100 // what is rare takes the slow way
		}
	}
	if digits > 0 && digits <= 18 && fraction <= 3 {
		for range 3 - max(0, fraction) {
			t *= 10
		}
		if digits <= 15 {
			return t
		}
	}
	v, err := strconv.ParseFloat(string(b), 64)
	if err != nil || math.Abs(v) > 1e15 {
		s.fail("a time")
		return 0
	}
	return int64(math.Round(v * 1000))
}

// skip consumes any value.
func (s *scanner) skip(depth int) {
	if depth > maxDepth {
		s.fail("less nesting")
		return
	}
	switch c := s.peek(); {
	case c == '{':
		s.object(func(string) { s.skip(depth + 1) })
	case c == '[':
		s.array(func() { s.skip(depth + 1) })
	case c == '"':
		s.raw()
	case c >= 'a' && c <= 'z':
		for s.at < len(s.data) && s.data[s.at] >= 'a' && s.data[s.at] <= 'z' {
			s.at++
		}
	default:
		s.number()
	}
}

// labels consumes an object of strings.
func (s *scanner) labels(b *labels.ScratchBuilder) labels.Labels {
	b.Reset()
	s.object(func(name string) { b.Add(name, s.text()) })
	b.Sort()
	return b.Labels()
}

// answer is what every answer of the query API says beside its data.
type answer struct {
	status, errorType, err string
	warnings               []string
}

// errAnswer means that the server answered with an error.
var errAnswer = errors.New("the server answered")

// decodeAnswer reads an answer; data consumes what is in its field "data".
func decodeAnswer(body []byte, data func(s *scanner)) (answer, error) {
	var a answer
	s := &scanner{data: body}
	s.object(func(key string) {
		switch key {
		case "status":
			a.status = s.text()
		case "errorType":
			a.errorType = s.text()
		case "error":
			a.err = s.text()
		case "warnings":
			s.array(func() { a.warnings = append(a.warnings, s.text()) })
		case "data":
			if s.peek() == 'n' {
				s.skip(0)
				return
			}
			data(s)
		default:
			s.skip(0)
		}
	})
	if s.err == nil && s.peek() != 0 {
		s.fail("the end")
	}
	switch {
	case s.err != nil:
		return a, s.err
	case a.status != "success":
		return a, fmt.Errorf("%w: %s: %s: %s", errAnswer, a.status, a.errorType, a.err)
	}
	return a, nil
}

// matrix decodes the series of a range selector. What each gets is valid during the call.
type matrix struct {
	builder labels.ScratchBuilder
	samples []sample
}

// decode consumes the data of a query's answer.
func (m *matrix) decode(s *scanner, each func(labels.Labels, []sample)) {
	s.object(func(key string) {
		switch key {
		case "resultType":
			if kind := s.text(); kind != "matrix" {
				s.fail("a matrix, not a " + kind)
			}
		case "result":
			s.array(func() { m.series(s, each) })
		default:
			s.skip(0)
		}
	})
}

func (m *matrix) series(s *scanner, each func(labels.Labels, []sample)) {
	m.samples = m.samples[:0]
	lset, floats, histograms := labels.EmptyLabels(), 0, 0
	s.object(func(key string) {
		switch key {
		case "metric":
			lset = s.labels(&m.builder)
		case "values":
			from := len(m.samples)
			s.array(func() { m.point(s, func(to *sample) { to.v = s.quoted() }) })
			floats = len(m.samples) - from
		case "histograms":
			from := len(m.samples)
			s.array(func() { m.point(s, func(to *sample) { to.rendered = s.histogram() }) })
			histograms = len(m.samples) - from
		default:
			s.skip(0)
		}
	})
	if s.err != nil {
		return
	}
	if floats > 0 && histograms > 0 {
		m.merge()
	}
	each(lset, m.samples)
}

func (m *matrix) point(s *scanner, read func(to *sample)) {
	s.expect('[')
	m.samples = append(m.samples, sample{t: s.time()})
	s.expect(',')
	read(&m.samples[len(m.samples)-1])
	s.expect(']')
}

// merge puts floats and histograms, which come as two lists, in the order of time. It is stable, so that a list that is
// not in order by itself stays so.
func (m *matrix) merge() {
	first := 0
	for first < len(m.samples) && (m.samples[first].rendered == nil) == (m.samples[0].rendered == nil) {
		first++
	}
	a, b := m.samples[:first], m.samples[first:]
	merged := make([]sample, 0, len(m.samples))
	for len(a) > 0 && len(b) > 0 {
		if a[0].t <= b[0].t {
			merged, a = append(merged, a[0]), a[1:]
		} else {
			merged, b = append(merged, b[0]), b[1:]
		}
	}
	m.samples = append(append(merged, a...), b...)
}

// histogram consumes a native histogram.
func (s *scanner) histogram() *rendered {
	r := &rendered{}
	s.object(func(key string) {
		switch key {
		case "count":
			r.count = s.quoted()
		case "sum":
			r.sum = s.quoted()
		case "buckets":
			s.array(func() {
				s.expect('[')
				rule, err := strconv.Atoi(string(s.number()))
				if err != nil || rule < openLeft || rule > closedBoth {
					s.fail("a rule of bounds, 0 to 3")
				}
				b := bucket{rule: rule}
				for _, to := range []*float64{&b.lower, &b.upper, &b.count} {
					s.expect(',')
					*to = s.quoted()
				}
				s.expect(']')
				r.buckets = append(r.buckets, b)
			})
		default:
			s.skip(0)
		}
	})
	return r
}
