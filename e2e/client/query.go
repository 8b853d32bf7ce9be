package client

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Series is one series of a matrix.
type Series struct {
	Metric     map[string]string `json:"metric"`
	Values     []Point           `json:"values"`
	Histograms []Point           `json:"histograms"`
}

// Point is a sample of an answer: a float, or a histogram.
type Point struct {
	// T is in milliseconds since the Unix epoch.
	T int64
	V float64
	H *Histogram
}

// Histogram is a native histogram as the HTTP API renders it.
type Histogram struct {
	Count, Sum float64
	Buckets    []Bucket
}

// Bucket is one bucket that is not empty. Bounds says which bounds belong to it, as the HTTP API numbers them.
type Bucket struct {
	Bounds              int
	Lower, Upper, Count float64
}

// UnmarshalJSON reads [seconds, "value"] and [seconds, {histogram}].
func (p *Point) UnmarshalJSON(data []byte) error {
	var pair [2]json.RawMessage
	if err := json.Unmarshal(data, &pair); err != nil {
		return err
	}
	seconds, err := strconv.ParseFloat(string(pair[0]), 64)
	if err != nil {
		return err
	}
	p.T = int64(math.Round(seconds * 1000))
	if pair[1][0] != '{' {
		p.V, err = number(pair[1])
		return err
	}
	p.H = &Histogram{}
	return json.Unmarshal(pair[1], p.H)
}

// UnmarshalJSON reads a histogram, all of whose numbers are strings.
func (h *Histogram) UnmarshalJSON(data []byte) error {
	var raw struct {
		Count, Sum json.RawMessage
		Buckets    [][4]json.RawMessage
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	var err error
	if h.Count, err = number(raw.Count); err != nil {
		return err
	}
	if h.Sum, err = number(raw.Sum); err != nil {
		return err
	}
	for _, r := range raw.Buckets {
		var f [3]float64
		for i := range f {
			if f[i], err = number(r[i+1]); err != nil {
				return err
			}
		}
		bounds, err := strconv.Atoi(string(r[0]))
		if err != nil {
			return err
		}
		h.Buckets = append(h.Buckets, Bucket{Bounds: bounds, Lower: f[0], Upper: f[1], Count: f[2]})
	}
	return nil
}

func number(data json.RawMessage) (float64, error) {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return 0, err
	}
	return strconv.ParseFloat(s, 64)
}

// QueryError is an answer of the query API that is no success.
type QueryError struct {
	Status          int
	ErrorType, Text string
}

// Error returns what the server said.
func (e *QueryError) Error() string {
	return fmt.Sprintf("query answered %d, %s: %s", e.Status, e.ErrorType, e.Text)
}

// Samples returns the raw samples of the series that a selector names, in (at-back, at].
func (c *Client) Samples(ctx context.Context, selector string, at, back int64) ([]Series, error) {
	var result []Series
	err := c.Query(ctx, fmt.Sprintf("%s[%dms]", selector, back), at, &result)
	return result, err
}

// Query evaluates an instant query at a time in milliseconds and decodes its result. See Warned for
// warnings.
func (c *Client) Query(ctx context.Context, expr string, at int64, result any) error {
	form := url.Values{"query": {expr}, "time": {strconv.FormatFloat(float64(at)/1000, 'f', 3, 64)}}
	return c.api(ctx, "/api/v1/query", form, result)
}

// Values returns the values of a label.
func (c *Client) Values(ctx context.Context, label string, mint, maxt int64) ([]string, error) {
	var values []string
	err := c.api(ctx, "/api/v1/label/"+label+"/values?"+url.Values{
		"start": {strconv.FormatFloat(float64(mint)/1000, 'f', 3, 64)},
		"end":   {strconv.FormatFloat(float64(maxt)/1000, 'f', 3, 64)},
	}.Encode(), nil, &values)
	return values, err
}

// Ask gets a path below the query API, such as "/api/v1/metadata", and decodes what stands under "data".
func (c *Client) Ask(ctx context.Context, path string, result any) error {
	return c.api(ctx, path, nil, result)
}

func (c *Client) api(ctx context.Context, path string, form url.Values, result any) error {
	method := http.MethodGet
	if form != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, c.QueryURL+path, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	a, err := c.do(req)
	if err != nil {
		return err
	}
	var answer struct {
		Status, ErrorType, Error string
		Warnings                 []string
		Data                     json.RawMessage
	}
	if err := json.Unmarshal([]byte(a.Body), &answer); err != nil || answer.Status != "success" {
		text := answer.Error
		if text == "" {
			text = a.Body
		}
		return &QueryError{Status: a.Status, ErrorType: answer.ErrorType, Text: text}
	}
	if text := strings.Join(answer.Warnings, "; "); text != "" {
		if c.Warned == nil {
			return &QueryError{Status: a.Status, ErrorType: "warnings", Text: text}
		}
		c.Warned(text)
	}
	if method == http.MethodPost {
		var typed struct{ Result json.RawMessage }
		if err := json.Unmarshal(answer.Data, &typed); err != nil {
			return err
		}
		return json.Unmarshal(typed.Result, result)
	}
	return json.Unmarshal(answer.Data, result)
}

// Metric returns the sum over all series of one metric of the server's own /metrics whose labels contain all the given
// fragments, such as `reason="too_old"`.
func (c *Client) Metric(ctx context.Context, name string, fragments ...string) (float64, error) {
	a, err := c.Get(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	sum, found := 0.0, false
	for line := range strings.Lines(a.Body) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' || !containsAll(rest, fragments) {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", name, err)
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, fmt.Errorf("no metric %s %v", name, fragments)
	}
	return sum, nil
}

func containsAll(s string, fragments []string) bool {
	for _, f := range fragments {
		if !strings.Contains(s, f) {
			return false
		}
	}
	return true
}

// Now returns the present time in milliseconds since the Unix epoch.
func Now() int64 { return time.Now().UnixMilli() }
