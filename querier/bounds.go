package querier

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
)

// Prometheus' parser, engine and printer recurse over an expression and copy the text below it at each level, which no
// timeout ends: ten megabytes of parentheses take hours and all memory. These bounds keep what an expression costs by
// itself under a second or so; they are far above what people and dashboards write.
const (
	// maxOperators bounds operators, parentheses and square brackets of an expression, which are its levels at most.
	maxOperators = 2000
	// maxFormatOperators is the bound for format_query, whose time grows with the third power.
	maxFormatOperators = 300
	// maxFormBytes bounds a POST form: what net/http reads of one.
	maxFormBytes = 10 << 20
)

// bounded refuses a request to a route whose parameters alone would be too costly, or that the engine cannot carry
// out. The error is the text for the client.
func bounded(w http.ResponseWriter, r *http.Request, route string) error {
	if r.Body != nil {
		r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	}
	err := r.ParseForm()
	if err == nil {
		err = r.ParseMultipartForm(maxFormBytes)
	}
	if err != nil && !errors.Is(err, http.ErrNotMultipart) {
		return fmt.Errorf("read the parameters: %w", err)
	}
	most := maxOperators
	switch route {
	case "format_query":
		most = maxFormatOperators
	case "query_range":
		// The engine divides by the step in milliseconds.
		if step, err := strconv.ParseFloat(r.Form.Get("step"), 64); err == nil && step > 0 && step < 0.001 {
			return fmt.Errorf("invalid parameter \"step\": %g s is less than a millisecond, the finest step", step)
		}
	}
	if n := operators(r.Form.Get("query")); n > most {
		return fmt.Errorf("invalid parameter \"query\": it has %d operators, parentheses and square brackets; "+
			"at most %d are accepted", n, most)
	}
	return checkRegexes(r.Form.Get("query"), r.Form["match[]"])
}

// boundConnection ends a request that does not arrive, and an answer that is not taken: while one lasts it may hold back
// cuts and deletions of recent data. The returned function lifts the bound for the connection's next request.
func boundConnection(w http.ResponseWriter, after time.Duration) (lift func()) {
	controller, end := http.NewResponseController(w), time.Now().Add(after)
	// Only a test's writer does not support deadlines. The server itself lifts the one for reading.
	_ = controller.SetReadDeadline(end)
	_ = controller.SetWriteDeadline(end)
	return func() { _ = controller.SetWriteDeadline(time.Time{}) }
}

// operators counts what can nest in an expression. Text that cannot be lexed is counted up to the fault, where the
// parser ends as well.
func operators(query string) (n int) {
	var (
		item   parser.Item
		braces bool
	)
	for lexer := parser.Lex(query); ; {
		lexer.NextItem(&item)
		switch {
		case item.Typ == parser.EOF, item.Typ == parser.ERROR:
			return n
		case item.Typ == parser.LEFT_BRACE:
			braces = true
		case item.Typ == parser.RIGHT_BRACE:
			braces = false
		case item.Typ == parser.LEFT_PAREN, item.Typ == parser.LEFT_BRACKET, item.Typ.IsOperator() && !braces:
			n++
		}
	}
}
