// Package ask owns how the tool speaks to a server: the tenant's header, the form of a request and the reading of an
// error that is no JSON. It refuses to know what is asked; the packages of the commands do. Read package query next.
package ask

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/duramendb/duramen/internal/buildinfo"
	"github.com/duramendb/duramen/internal/cli"
	"github.com/duramendb/duramen/tenant"
)

// Client asks one server on behalf of one tenant. Its owner calls Close.
type Client struct {
	server cli.Server
	http   *http.Client
	agent  string
}

// ValidateTenant says whether -tenant names a tenant, or is empty for the server's default.
func ValidateTenant(id string) error {
	if id == "" {
		return nil
	}
	if err := tenant.ValidateID(id); err != nil {
		return cli.Usagef("-tenant: %w", err)
	}
	return nil
}

// New returns a client of the server, whose URL and tenant were validated. It opens no connection; an error says what is
// wrong with a file of its access.
func New(server cli.Server) (*Client, error) {
	transport, err := server.Transport(&http.Transport{Proxy: http.ProxyFromEnvironment})
	if err != nil {
		return nil, err
	}
	return &Client{server: server, http: &http.Client{Transport: transport}, agent: "duramenctl/" + buildinfo.Read().Version}, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Answer is what the server said: its status and its whole body.
type Answer struct {
	Status int
	Body   []byte
}

// Get asks with GET.
func (c *Client) Get(ctx context.Context, path string) (Answer, error) {
	return c.do(ctx, http.MethodGet, path, nil, "")
}

// PostForm asks with POST and a form, which has no limit of length as a URL has.
func (c *Client) PostForm(ctx context.Context, path string, form url.Values) (Answer, error) {
	return c.do(ctx, http.MethodPost, path, strings.NewReader(form.Encode()), "application/x-www-form-urlencoded")
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader, contentType string) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.server.URL+path, body)
	if err != nil {
		return Answer{}, err
	}
	req.Header.Set("User-Agent", c.agent)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if c.server.Tenant != "" {
		req.Header.Set(tenant.HeaderName, c.server.Tenant)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return Answer{}, fmt.Errorf("read the answer of %s: %w", req.URL.Redacted(), err)
	}
	return Answer{Status: res.StatusCode, Body: data}, nil
}

// maxShown is how much of an unexpected body an error shows.
const maxShown = 500

// Error describes an answer that is not what was asked for: its status and the beginning of its text.
func (a Answer) Error() error {
	text := strings.TrimSpace(strings.ToValidUTF8(string(a.Body[:min(len(a.Body), maxShown)]), ""))
	return fmt.Errorf("the server answered %d %s: %s", a.Status, http.StatusText(a.Status), text)
}
