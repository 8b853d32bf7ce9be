package cli

import (
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/duramendb/duramen/internal/tlsfiles"
)

// DefaultURL is where a Duramen with default settings listens.
const DefaultURL = "http://localhost:9009"

// Server holds the flags of every command that speaks to a server.
type Server struct {
	URL    string
	Tenant string // empty: no header is sent, and a single node uses its default tenant
	Access Access
}

// Access is what a server that is protected asks for.
type Access struct {
	Username, PasswordFile    string
	CAFile, CertFile, KeyFile string
}

// RegisterFlags registers -url, -tenant and those of Access.
func (s *Server) RegisterFlags(f *flag.FlagSet) {
	f.StringVar(&s.URL, "url", DefaultURL, "Where Duramen listens, without a path.")
	f.StringVar(&s.Tenant, "tenant", "", "The tenant (X-Scope-OrgID). Empty sends none: the server's default tenant.")
	s.Access.RegisterFlags(f)
}

// RegisterFlags registers the flags.
func (a *Access) RegisterFlags(f *flag.FlagSet) {
	f.StringVar(&a.Username, "basic-auth.username", "", "User name for the server, where it asks for one.")
	f.StringVar(&a.PasswordFile, "basic-auth.password-file", "", "File with the user's password; a new line at its end does not count.")
	f.StringVar(&a.CAFile, "tls.ca-file", "", "Authorities to trust, in PEM, for a server with https. Empty: those of the system.")
	f.StringVar(&a.CertFile, "tls.cert-file", "", "Certificate to show to the server, in PEM.")
	f.StringVar(&a.KeyFile, "tls.key-file", "", "Key of the certificate, in PEM.")
}

// Validate checks the URL and takes a slash off its end, and checks which files are named.
func (s *Server) Validate() error {
	u, err := url.Parse(s.URL)
	if err == nil && u.Scheme != "http" && u.Scheme != "https" || err == nil && u.Host == "" {
		err = fmt.Errorf("%q is no http:// or https:// URL", s.URL)
	}
	if err == nil && u.User != nil {
		err = fmt.Errorf("%q has a user, and others can see command lines: use -basic-auth.username and "+
			"-basic-auth.password-file", u.Redacted())
	}
	if err != nil {
		return Usagef("-url: %w", err)
	}
	s.URL = strings.TrimRight(s.URL, "/")
	a := s.Access
	switch {
	case (a.Username == "") != (a.PasswordFile == ""):
		return Usagef("-basic-auth.username and -basic-auth.password-file go together")
	case (a.CertFile == "") != (a.KeyFile == ""):
		return Usagef("-tls.cert-file and -tls.key-file go together")
	case (a.CAFile != "" || a.CertFile != "") && u.Scheme != "https":
		return Usagef("-tls.ca-file and -tls.cert-file are for a -url with https, and it is %s", s.URL)
	default:
		return nil
	}
}

// Transport reads the files and returns base with what they say: base's requests to the URL's host carry the password, and its
// connections the certificate. base must be new, and the URL valid. The error names the flag.
func (s *Server) Transport(base *http.Transport) (http.RoundTripper, error) {
	a := s.Access
	to, err := url.Parse(s.URL)
	if err != nil {
		return nil, fmt.Errorf("-url: %w", err)
	}
	if a.CAFile != "" || a.CertFile != "" {
		config, err := (&tlsfiles.ClientConfig{CAFile: a.CAFile, CertFile: a.CertFile, KeyFile: a.KeyFile}).Read()
		if err != nil {
			return nil, fmt.Errorf("-tls: %w", err)
		}
		base.TLSClientConfig, base.ForceAttemptHTTP2 = config, true
	}
	if a.PasswordFile == "" {
		return base, nil
	}
	data, err := os.ReadFile(a.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("-basic-auth.password-file: %w", err)
	}
	return &authorized{base, to, a.Username, strings.TrimRight(string(data), "\r\n")}, nil
}

// authorized adds a user and a password to requests for one server, and to none for another that its answers redirect to.
type authorized struct {
	*http.Transport

	to                 *url.URL
	username, password string
}

// RoundTrip implements http.RoundTripper.
func (t *authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.EqualFold(r.URL.Host, t.to.Host) || r.URL.Scheme != "https" && t.to.Scheme == "https" {
		return t.Transport.RoundTrip(r)
	}
	r = r.Clone(r.Context())
	r.SetBasicAuth(t.username, t.password)
	return t.Transport.RoundTrip(r)
}
