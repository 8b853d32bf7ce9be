package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// calls records how the commands of tree were run.
type calls struct {
	colour string
	args   []string
	ran    int
	err    error
}

func tree(c *calls) Command {
	return Command{
		Name: "tool", Summary: "does things", Example: "tool paint -colour=red wall",
		Commands: []Command{
			{
				Name: "paint", Args: "[flags] THING...", Summary: "paints things", Long: "Two coats.",
				Example: "tool paint -colour=red wall\ntool paint door",
				Flags:   func(f *flag.FlagSet) { f.StringVar(&c.colour, "colour", "white", "The `name` of a colour.") },
				Run: func(_ context.Context, env Env, args []string) error {
					c.ran++
					c.args = args
					fmt.Fprint(env.Stdout, "painted")
					return c.err
				},
			},
			{Name: "wall", Summary: "walls", Commands: []Command{{
				Name: "list", Summary: "lists walls", Example: "tool wall list",
				Run: func(context.Context, Env, []string) error { c.ran++; return c.err },
			}}},
		},
	}
}

// invoke runs the tree and returns the exit code and what was written.
func invoke(t *testing.T, c *calls, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	env := Env{Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }}
	code = Main(t.Context(), tree(c), args, env)
	return code, out.String(), errs.String()
}

func TestFlagsMayStandBehindArguments(t *testing.T) {
	for _, args := range [][]string{
		{"paint", "-colour=red", "wall", "door"},
		{"paint", "wall", "-colour", "red", "door"},
		{"paint", "wall", "door", "--colour=red"},
	} {
		var c calls
		code, out, errs := invoke(t, &c, args...)
		require.Equal(t, ExitDone, code, errs)
		require.Equal(t, calls{colour: "red", args: []string{"wall", "door"}, ran: 1}, c)
		require.Equal(t, "painted", out)
		require.Empty(t, errs)
	}
	var c calls
	code, _, _ := invoke(t, &c, "paint", "wall", "--", "-colour=red", "--")
	require.Equal(t, ExitDone, code)
	require.Equal(t, calls{colour: "white", args: []string{"wall", "-colour=red", "--"}, ran: 1}, c)
}

func TestExitCodes(t *testing.T) {
	cause := errors.New("no paint")
	for _, tt := range []struct {
		err  error
		code int
		says string
	}{
		{nil, ExitDone, ""},
		{cause, ExitFailed, "tool paint: no paint\n"},
		{context.Canceled, ExitFailed, "tool paint: context canceled\n"},
		{Usagef("-colour: %w", cause), ExitUsage, "tool paint: -colour: no paint\nRun \"tool paint -h\" for help.\n"},
		{Wrong(cause), ExitWrong, "tool paint: no paint\n"},
		{fmt.Errorf("wall: %w", Wrong(cause)), ExitWrong, "tool paint: wall: no paint\n"},
	} {
		code, _, errs := invoke(t, &calls{err: tt.err}, "paint")
		require.Equal(t, tt.code, code, "%v", tt.err)
		require.Equal(t, tt.says, errs)
	}
	require.NoError(t, Wrong(nil))
	require.ErrorIs(t, Wrong(cause), ErrWrong)
	require.ErrorIs(t, Wrong(cause), cause)
	require.ErrorIs(t, Usagef("x: %w", cause), cause)
}

func TestWrongCommandLinesRunNothing(t *testing.T) {
	for _, tt := range []struct {
		args []string
		says string
	}{
		{nil, "Usage:\n  tool COMMAND"},
		{[]string{"wall"}, "Usage:\n  tool wall COMMAND"},
		{[]string{"pant"}, `unknown command "pant": did you mean "paint"?`},
		{[]string{"xyzzy"}, "tool: unknown command \"xyzzy\"\nRun \"tool -h\" for help.\n"},
		{[]string{"wall", "lost"}, `tool wall: unknown command "lost": did you mean "list"?`},
		{[]string{"help", "pain"}, `unknown command "pain": did you mean "paint"?`},
		{[]string{"-colour=red", "paint"}, "flag -colour=red stands before the command"},
		{[]string{"paint", "-color=red"}, "flag provided but not defined: -color\nRun \"tool paint -h\" for help."},
	} {
		var c calls
		code, out, errs := invoke(t, &c, tt.args...)
		require.Equal(t, ExitUsage, code, "%q", tt.args)
		require.Contains(t, errs, tt.says)
		require.Empty(t, out)
		require.Zero(t, c.ran)
	}
}

func TestHelpAtEveryLevel(t *testing.T) {
	const paint = `tool paint: paints things

Usage:
  tool paint [flags] THING...

Two coats.

Example:
  tool paint -colour=red wall
  tool paint door

Flags:
  -colour name
        The name of a colour. (default white)
`
	for _, args := range [][]string{{"paint", "-h"}, {"paint", "--help"}, {"paint", "wall", "-help"}, {"help", "paint"}, {"-h", "paint"}} {
		var c calls
		code, out, errs := invoke(t, &c, args...)
		require.Equal(t, ExitDone, code)
		require.Equal(t, paint, out, "%q", args)
		require.Empty(t, errs)
		require.Zero(t, c.ran)
	}
	for _, args := range [][]string{{"-h"}, {"help"}, {"--help"}} {
		code, out, _ := invoke(t, &calls{}, args...)
		require.Equal(t, ExitDone, code)
		require.Contains(t, out, "  paint  paints things\n  wall   walls\n")
		require.Contains(t, out, "Example:\n  tool paint -colour=red wall\n")
	}
	for _, args := range [][]string{{"wall", "help", "list"}, {"help", "wall", "list"}, {"wall", "list", "-h"}} {
		code, out, _ := invoke(t, &calls{}, args...)
		require.Equal(t, ExitDone, code)
		require.Contains(t, out, "tool wall list: lists walls\n")
	}
}

func TestServerURL(t *testing.T) {
	for in, want := range map[string]string{
		"http://a:1": "http://a:1", "https://a/": "https://a", "http://a/x//": "http://a/x", "a:9009": "", "": "", "ftp://a": "",
		"http://": "", "http://a b": "",
	} {
		s := Server{URL: in}
		err := s.Validate()
		if want == "" {
			require.ErrorIs(t, err, ErrUsage, in)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, want, s.URL)
	}
}

func TestAccessToAServer(t *testing.T) {
	for name, s := range map[string]Server{
		"a user alone":         {URL: "https://a", Access: Access{Username: "u"}},
		"a password alone":     {URL: "https://a", Access: Access{PasswordFile: "f"}},
		"half a certificate":   {URL: "https://a", Access: Access{CertFile: "f"}},
		"authorities, no TLS":  {URL: "http://a", Access: Access{CAFile: "f"}},
		"a user in the URL":    {URL: "https://u:geheim@a"},
		"certificates, no TLS": {URL: "http://a", Access: Access{CertFile: "f", KeyFile: "f"}},
	} {
		err := s.Validate()
		require.ErrorIs(t, err, ErrUsage, name)
		require.NotContains(t, err.Error(), "geheim")
	}

	var user, password string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { user, password, _ = r.BasicAuth() }))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("with space \r\n"), 0o600))
	s := Server{URL: server.URL, Access: Access{Username: "u", PasswordFile: file}}
	transport, err := s.Transport(&http.Transport{})
	require.NoError(t, err)
	client := &http.Client{Transport: transport}
	defer client.CloseIdleConnections()
	res, err := client.Get(server.URL)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, []string{"u", "with space "}, []string{user, password})

	s.Access.PasswordFile += ".nowhere"
	_, err = s.Transport(&http.Transport{})
	require.ErrorContains(t, err, "-basic-auth.password-file")
	_, err = (&Server{Access: Access{CAFile: "/nowhere"}}).Transport(&http.Transport{})
	require.ErrorContains(t, err, "-tls: ca_file")
}

// TestThePasswordIsForOneServer: where that redirects to another one, or from https to http, it is not sent along.
func TestThePasswordIsForOneServer(t *testing.T) {
	seen := map[string]bool{} // whether a password came, by path
	note := func(_ http.ResponseWriter, r *http.Request) { _, _, seen[r.URL.Path] = r.BasicAuth() }
	other := httptest.NewServer(http.HandlerFunc(note))
	defer other.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note(w, r)
		switch r.URL.Path {
		case "/first":
			http.Redirect(w, r, "/second", http.StatusFound)
		case "/second":
			http.Redirect(w, r, other.URL+"/other", http.StatusFound)
		}
	}))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("secret"), 0o600))
	get := func(to, asked string) {
		s := Server{URL: to, Access: Access{Username: "u", PasswordFile: file}}
		transport, err := s.Transport(&http.Transport{})
		require.NoError(t, err)
		client := &http.Client{Transport: transport}
		defer client.CloseIdleConnections()
		res, err := client.Get(asked)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
	}
	get(server.URL, server.URL+"/first")
	require.Equal(t, map[string]bool{"/first": true, "/second": true, "/other": false}, seen)
	get(strings.Replace(server.URL, "http:", "https:", 1), server.URL+"/plain")
	require.False(t, seen["/plain"], "the server was to be asked by https")
}

func TestHumanNumbers(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 10 << 10: "10.0 KiB", 100 << 20: "100 MiB", 3 << 29: "1.50 GiB", -2048: "-2.00 KiB",
	} {
		require.Equal(t, want, Bytes(n))
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1500: "1.50k", 10_000_000: "10.0M", 123_456_789: "123M"} {
		require.Equal(t, want, Count(n))
	}
}

// clock is a time that stands until it is moved.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func TestProgressInALog(t *testing.T) {
	var out bytes.Buffer
	c := &clock{time.Unix(100, 0)}
	p := newProgress(Env{Stderr: &out}, "copy", 100<<20, "bytes", c.now)
	p.Add(10 << 20)
	require.Empty(t, out.String(), "not due")
	c.t = c.t.Add(10 * time.Second)
	p.Add(10 << 20)
	require.Equal(t, "copy: 20.0 MiB/100 MiB (20%), 2.00 MiB/s, 40s left\n", out.String())
	out.Reset()
	c.t = c.t.Add(9 * time.Second)
	p.Set(90 << 20)
	require.Empty(t, out.String(), "not due again")
	c.t = c.t.Add(time.Second)
	p.Set(100 << 20)
	require.Equal(t, "copy: 100 MiB/100 MiB (100%), 5.00 MiB/s\n", out.String())
	out.Reset()
	p.Done()
	require.Equal(t, "copy: 100 MiB/100 MiB (100%), 5.00 MiB/s, took 20s\n", out.String())
	p.Done()
	p.Add(1)
	require.Equal(t, 1, bytes.Count(out.Bytes(), []byte("\n")), "nothing after the end")
}

func TestProgressOnATerminal(t *testing.T) {
	var out bytes.Buffer
	c := &clock{time.Unix(100, 0)}
	p := newProgress(Env{Stderr: &out, Terminal: true}, "load", 0, "samples", c.now)
	c.t = c.t.Add(200 * time.Millisecond)
	p.Add(1000)
	p.Add(1000)
	require.Equal(t, "\rload: 1.00k samples, 5.00k/s\x1b[K", out.String())
	out.Reset()
	p.Clear()
	p.Clear()
	require.Equal(t, "\r\x1b[K", out.String(), "once")
	out.Reset()
	p.Done()
	require.Equal(t, "\rload: 2.00k samples, 10.0k/s, took 200ms\x1b[K\n", out.String())
}

func TestWidth(t *testing.T) {
	columns := ""
	env := Env{Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}, Getenv: func(string) string { return columns }}
	require.Equal(t, 80, env.Width())
	columns = "132"
	require.Equal(t, 132, env.Width())
	columns = "-1"
	require.Equal(t, 80, env.Width())
}
