// Package remotewrite sends remote write requests, version 1.0 or 2.0, as Prometheus does. It builds no request, retries
// nothing and hides no answer: an error means that none came and nothing is known. Read package loadgen next for a sender
// that goes on until it is told.
package remotewrite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Version is a version of remote write.
type Version int

// The versions.
const (
	V1 Version = 1
	V2 Version = 2
)

// maxAnswer bounds what is read of an answer: texts of errors are a few lines.
const maxAnswer = 1 << 20

// Client sends to one URL for one tenant. It is safe for concurrent use.
type Client struct {
	// URL is where writes go.
	URL string
	// Tenant is sent as X-Scope-OrgID unless empty.
	Tenant string
	// UserAgent names the sender.
	UserAgent string
	HTTP      *http.Client
}

// Answer is what a write was answered.
type Answer struct {
	Status int
	Body   string
	Header http.Header
}

// OK reports whether everything was stored.
func (a Answer) OK() bool { return a.Status/100 == 2 }

// Retry reports whether a sender has to try again.
func (a Answer) Retry() bool { return a.Status/100 == 5 || a.Status == http.StatusTooManyRequests }

// Written returns how many samples, histograms included, the receiver says it has written. Receivers of 2.0 have to say
// it; ok is false when this one did not, which means that it took the request for one of 1.0.
func (a Answer) Written() (n int, ok bool) {
	for _, kind := range []string{"Samples", "Histograms"} {
		written, err := strconv.Atoi(a.Header.Get("X-Prometheus-Remote-Write-" + kind + "-Written"))
		if err == nil {
			n, ok = n+written, true
		}
	}
	return n, ok
}

// RetryAfter returns how long the receiver wants the sender to wait, 0 when it does not say.
func (a Answer) RetryAfter(now time.Time) time.Duration {
	value := a.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil {
		return max(0, time.Duration(seconds)*time.Second)
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// ErrRequest means that the client's URL or tenant fits into no request: nothing was sent, and nothing ever will be.
var ErrRequest = errors.New("the request cannot be built")

// Push sends a request that is compressed with snappy already. An error other than ErrRequest means that no answer came:
// the samples may be stored or not.
func (c *Client) Push(ctx context.Context, v Version, body []byte) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, bytes.NewReader(body))
	switch {
	case err != nil:
		return Answer{}, fmt.Errorf("%w: %w", ErrRequest, err)
	case req.URL.Scheme != "http" && req.URL.Scheme != "https" || req.URL.Host == "":
		return Answer{}, fmt.Errorf("%w: %q is no http:// or https:// URL", ErrRequest, req.URL.Redacted())
	case strings.ContainsFunc(c.Tenant, noHeader):
		return Answer{}, fmt.Errorf("%w: tenant %q does not fit into a header", ErrRequest, c.Tenant)
	}
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("User-Agent", c.UserAgent)
	if v == V2 {
		req.Header.Set("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
		req.Header.Set("X-Prometheus-Remote-Write-Version", "2.0.0")
	} else {
		req.Header.Set("Content-Type", "application/x-protobuf")
		req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	}
	if c.Tenant != "" {
		req.Header.Set("X-Scope-OrgID", c.Tenant)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return Answer{}, fmt.Errorf("read the answer: %w", err)
	}
	return Answer{Status: resp.StatusCode, Body: string(text), Header: resp.Header}, nil
}

// noHeader reports whether a character may not stand in the value of a header.
func noHeader(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
