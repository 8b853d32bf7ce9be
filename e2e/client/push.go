// Package client speaks to a server as Prometheus and Grafana do: remote write in both versions, queries, metrics. It
// retries nothing and hides no answer; what to make of one is the story's business. Read the stories in e2e next.
package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/duramendb/duramen/internal/remotewrite"
)

// Version is a version of remote write.
type Version = remotewrite.Version

// The versions.
const (
	V1 = remotewrite.V1
	V2 = remotewrite.V2
)

// Answer is what a request was answered.
type Answer = remotewrite.Answer

// Client talks to one server. It is safe for concurrent use.
type Client struct {
	// PushURL is where writes go; QueryURL is what /api/v1/query is appended to; BaseURL is the server.
	PushURL, QueryURL, BaseURL string
	// Tenant is sent as X-Scope-OrgID unless empty.
	Tenant string
	// Warned takes the warnings of queries; nil makes them errors, for most stories never expect one.
	Warned func(text string)
	// HTTP may be replaced before the first use.
	HTTP *http.Client
}

// Duramen returns a client of a Duramen node.
func Duramen(baseURL, tenant string) *Client {
	c := newClient(baseURL)
	c.PushURL, c.QueryURL, c.Tenant = baseURL+"/api/v1/push", baseURL+"/prometheus", tenant
	return c
}

// Prometheus returns a client of a Prometheus server.
func Prometheus(baseURL string) *Client {
	c := newClient(baseURL)
	c.PushURL, c.QueryURL = baseURL+"/api/v1/write", baseURL
	return c
}

func newClient(baseURL string) *Client {
	return &Client{BaseURL: baseURL, HTTP: &http.Client{
		Timeout:   time.Minute,
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
	}}
}

// CloseIdle closes the connections that are not in use.
func (c *Client) CloseIdle() { c.HTTP.CloseIdleConnections() }

// Push compresses a request and sends it. An error means that no answer came, and nothing is known.
func (c *Client) Push(ctx context.Context, v Version, raw []byte) (Answer, error) {
	return c.Writer().Push(ctx, v, s2.EncodeSnappy(nil, raw))
}

// Writer returns what sends the writes of c, for a caller that needs no more.
func (c *Client) Writer() *remotewrite.Client {
	return &remotewrite.Client{URL: c.PushURL, Tenant: c.Tenant, UserAgent: "duramen-e2e", HTTP: c.HTTP}
}

// Post sends an empty POST to a path of the server, such as /ingester/flush?wait=true.
func (c *Client) Post(ctx context.Context, path string) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.BaseURL+path, nil)
	if err != nil {
		return Answer{}, err
	}
	return c.do(req)
}

// Get fetches a path of the server.
func (c *Client) Get(ctx context.Context, path string) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.BaseURL+path, nil)
	if err != nil {
		return Answer{}, err
	}
	return c.do(req)
}

func (c *Client) do(req *http.Request) (Answer, error) {
	if c.Tenant != "" {
		req.Header.Set("X-Scope-OrgID", c.Tenant)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return Answer{}, fmt.Errorf("read the answer: %w", err)
	}
	return Answer{Status: resp.StatusCode, Body: string(body), Header: resp.Header}, nil
}
