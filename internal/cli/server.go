package cli

import (
	"flag"
	"fmt"
	"net/url"
	"strings"
)

// DefaultURL is where a Duramen with default settings listens.
const DefaultURL = "http://localhost:9009"

// Server holds the flags of every command that speaks to a server.
type Server struct {
	URL    string
	Tenant string // empty: no header is sent, and a single node uses its default tenant
}

// RegisterFlags registers -url and -tenant.
func (s *Server) RegisterFlags(f *flag.FlagSet) {
	f.StringVar(&s.URL, "url", DefaultURL, "Where Duramen listens, without a path.")
	f.StringVar(&s.Tenant, "tenant", "", "The tenant (X-Scope-OrgID). Empty sends none: the server's default tenant.")
}

// Validate checks the URL and takes a slash off its end.
func (s *Server) Validate() error {
	u, err := url.Parse(s.URL)
	if err == nil && u.Scheme != "http" && u.Scheme != "https" || err == nil && u.Host == "" {
		err = fmt.Errorf("%q is no http:// or https:// URL", s.URL)
	}
	if err != nil {
		return Usagef("-url: %w", err)
	}
	s.URL = strings.TrimRight(s.URL, "/")
	return nil
}
