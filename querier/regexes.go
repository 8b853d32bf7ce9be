package querier

import (
	"regexp/syntax"

	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/strutil"

	"github.com/duramendb/duramen/internal/errkind"
)

// A regular expression is compiled when it is parsed, before anything of a query is bounded: "(a.){1000}" becomes thousands
// of instructions of some 40 bytes, of which each may be gone through for each letter of each value. Go bounds one
// expression to 128 MB; a request of ten megabytes could hold thousands of them.
const (
	// maxRegexBytes bounds the text of all regular expressions of a request: thirty thousand names of hosts.
	maxRegexBytes = 1 << 20
	// maxRegexGrowth bounds by how many instructions all of them together are longer than their text.
	maxRegexGrowth = 100_000
)

// regexCost adds up the regular expressions of a request.
type regexCost struct{ bytes, growth int }

// add counts an expression. One that Go refuses costs nothing: it is refused by its parser.
func (c *regexCost) add(pattern string) {
	c.bytes += len(pattern)
	if c.bytes > maxRegexBytes {
		return // it is not even parsed
	}
	if re, err := syntax.Parse(pattern, syntax.Perl|syntax.DotNL); err == nil {
		c.growth += max(0, instructions(re)-len(pattern))
	}
}

// addQuery counts the strings in PromQL as if each were a regular expression: those of matchers and of label_replace are.
// Text that cannot be lexed is counted up to the fault, where the parser ends as well.
func (c *regexCost) addQuery(promql string) {
	var item parser.Item
	for lexer := parser.Lex(promql); ; {
		lexer.NextItem(&item)
		switch item.Typ { //nolint:exhaustive // of a hundred kinds these matter
		case parser.EOF, parser.ERROR:
			return
		case parser.STRING:
			if pattern, err := strutil.Unquote(item.Val); err == nil {
				c.add(pattern)
			}
		}
	}
}

// checkRegexes refuses a request by the regular expressions of its query and of its selectors.
func checkRegexes(query string, selectors []string) error {
	var c regexCost
	c.addQuery(query)
	for _, s := range selectors {
		c.addQuery(s)
	}
	return c.err()
}

// err refuses what is too costly, with the number and the limit.
func (c *regexCost) err() error {
	switch {
	case c.bytes > maxRegexBytes:
		return errkind.New(errkind.Invalid, "the strings and regular expressions have %d bytes or more; at most %d are accepted", c.bytes,
			maxRegexBytes)
	case c.growth > maxRegexGrowth:
		return errkind.New(errkind.Invalid, "repetitions make the regular expressions longer by %d instructions; at most %d are "+
			"accepted", c.growth, maxRegexGrowth)
	}
	return nil
}

// instructions is about how many a regular expression is compiled to.
func instructions(re *syntax.Regexp) int {
	below := 0
	for _, sub := range re.Sub {
		below += instructions(sub)
	}
	switch re.Op {
	case syntax.OpLiteral:
		return len(re.Rune)
	case syntax.OpCharClass:
		return 1 + len(re.Rune)/8 // its ranges are kept beside
	case syntax.OpRepeat:
		return max(re.Min, re.Max, 1) * (below + 1)
	case syntax.OpAlternate:
		return below + len(re.Sub) - 1
	case syntax.OpConcat:
		return below
	default:
		return below + 2
	}
}

// checkReadRegexes is checkRegexes for remote read.
func checkReadRegexes(queries []*prompb.Query) error {
	var c regexCost
	for _, query := range queries {
		for _, m := range query.Matchers {
			if m.Type == prompb.LabelMatcher_RE || m.Type == prompb.LabelMatcher_NRE {
				c.add(m.Value)
			}
		}
	}
	return c.err()
}
