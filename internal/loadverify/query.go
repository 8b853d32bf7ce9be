package loadverify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/internal/loadplan"
)

// selection names the samples to read: of the pods of a run, at the times [mint, maxt] in milliseconds.
type selection struct {
	tenant, run string
	pods        []string
	mint, maxt  int64
}

// maxBody bounds an answer in memory. A window of the usual size takes some 10 MB.
const maxBody = 512 << 20

// Server is what a run is read from.
type Server struct {
	// URL is what /api/v1/… is appended to, such as http://localhost:9009/prometheus.
	URL  string
	HTTP *http.Client
}

// NewServer returns a server whose answers are not compressed: they would cost more than the way of bytes to a server
// nearby saves. An answer may take five minutes.
func NewServer(url string) *Server {
	return &Server{URL: url, HTTP: &http.Client{Timeout: 5 * time.Minute, Transport: Transport()}}
}

// Transport is a new one of those that NewServer's servers have, to which passwords and certificates can be added.
func Transport() *http.Transport {
	return &http.Transport{DisableCompression: true, Proxy: http.ProxyFromEnvironment}
}

// Close closes the connections that are not in use.
func (s *Server) Close() { s.HTTP.CloseIdleConnections() }

// errRetry means that the question may be answered later.
var errRetry = errors.New("no answer")

// AnswerError is an answer other than 200.
type AnswerError struct {
	Path   string
	Status int
	// Text is the begin of the answer's body.
	Text string
}

// Error returns what the server said.
func (e *AnswerError) Error() string {
	return fmt.Sprintf("%s answered %d: %s", e.Path, e.Status, e.Text)
}

// post sends a request and returns the response if its status is 200; the caller closes its body.
func (s *Server) post(ctx context.Context, tenant, path string, header http.Header, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = header.Clone()
	req.Header.Set("User-Agent", "duramenctl")
	if tenant != "" {
		req.Header.Set("X-Scope-OrgID", tenant)
	}
	resp, err := s.HTTP.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRetry, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
	err = &AnswerError{Path: path, Status: resp.StatusCode, Text: string(text)}
	if resp.StatusCode/100 == 5 || resp.StatusCode == http.StatusTooManyRequests {
		err = fmt.Errorf("%w: %w", errRetry, err)
	}
	return nil, err
}

// readAll reads a whole answer into buf.
func readAll(buf *bytes.Buffer, body io.Reader) error {
	buf.Reset()
	n, err := buf.ReadFrom(io.LimitReader(body, maxBody+1))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errRetry, err)
	case n > maxBody:
		return fmt.Errorf("the answer exceeds %d bytes: ask for fewer samples at once", maxBody)
	}
	return nil
}

// ask calls a path of the query API with a form and decodes the data of the answer.
func (s *Server) ask(
	ctx context.Context, buf *bytes.Buffer, tenant, path string, form url.Values, data func(*scanner),
) (warnings []string, err error) {
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	resp, err := s.post(ctx, tenant, path, header, []byte(form.Encode()))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := readAll(buf, resp.Body); err != nil {
		return nil, err
	}
	a, err := decodeAnswer(buf.Bytes(), data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return a.warnings, nil
}

func seconds(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64) }

// querier reads through range selectors. It belongs to one goroutine.
type querier struct {
	server *Server
	buf    bytes.Buffer
	matrix matrix
}

func (q *querier) read(ctx context.Context, sel selection, each func(labels.Labels, []sample)) ([]string, error) {
	pods := make([]string, len(sel.pods))
	for i, p := range sel.pods {
		pods[i] = regexp.QuoteMeta(p)
	}
	// A range selector excludes its left border.
	expr := fmt.Sprintf(`{%s=%q,pod=~%q}[%dms]`, loadplan.RunLabel, sel.run, strings.Join(pods, "|"), sel.maxt-sel.mint+1)
	form := url.Values{"query": {expr}, "time": {seconds(sel.maxt)}}
	return q.server.ask(ctx, &q.buf, sel.tenant, "/api/v1/query", form, func(s *scanner) { q.matrix.decode(s, each) })
}

// list calls each with every series that matches a selector.
func (q *querier) list(
	ctx context.Context, tenant, selector string, mint, maxt int64, each func(labels.Labels),
) ([]string, error) {
	form := url.Values{"match[]": {selector}, "start": {seconds(mint)}, "end": {seconds(maxt)}}
	return q.server.ask(ctx, &q.buf, tenant, "/api/v1/series", form, func(s *scanner) {
		s.array(func() {
			lset := s.labels(&q.matrix.builder)
			if s.err == nil {
				each(lset)
			}
		})
	})
}

// attempts is how often a question is asked that the server cannot answer now, pause how long it waits before the second
// time; it doubles. Together they outlast a restart.
const (
	attempts = 7
	pause    = 500 * time.Millisecond
)

// persist calls question until it has an answer that does not ask to come again.
func persist(ctx context.Context, question func() error) error {
	for n, wait := 1, pause; ; n, wait = n+1, 2*wait {
		err := question()
		if !errors.Is(err, errRetry) || n == attempts {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}
