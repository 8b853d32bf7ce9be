package faultproxy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/internal/certtest"
	"github.com/duramendb/duramen/internal/faultproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const content = "0123456789abcdefghij"

// backend is a server that answers everything with content and counts what reaches it.
type backend struct {
	address string
	seen    atomic.Int64
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	b := &backend{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.seen.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = io.WriteString(w, content)
	}))
	t.Cleanup(s.Close)
	b.address = s.Listener.Addr().String()
	return b
}

func newClient(t *testing.T, config *tls.Config) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// ask sends one request and returns the status, what came of the body, and the error of either.
func ask(ctx context.Context, c *http.Client, method, url string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader("body of the request"))
	if err != nil {
		return 0, "", err
	}
	req.GetBody = nil // net/http repeats nothing by itself
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), err
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		fault   faultproxy.Fault
		status  int
		body    string
		failed  bool
		applied int64
	}{
		{faultproxy.Pass(), 200, content, false, 1},
		{faultproxy.Answer(503, "down"), 503, "down", false, 0},
		{faultproxy.Reset(), 0, "", true, 0},
		{faultproxy.ResetUpload(), 0, "", true, 0},
		{faultproxy.Close(), 0, "", true, 0},
		{faultproxy.Late(time.Millisecond), 0, "", true, 1},
		{faultproxy.Applied(faultproxy.Answer(500, "")), 500, "", false, 1},
		{faultproxy.Applied(faultproxy.Reset()), 0, "", true, 1},
		{faultproxy.Cut(0.5, faultproxy.Reset()), 200, "", true, 1}, // what came before RST may be lost
		{faultproxy.Cut(0.5, faultproxy.Close()), 200, content[:10], true, 1},
		{faultproxy.CutAfter(3, faultproxy.Close()), 200, content[:3], true, 1},
		{faultproxy.Short(0.5), 200, content[:10], false, 1},
		{faultproxy.Unsized(0.25), 200, content[:5], false, 1},
		{faultproxy.Drip(7, time.Millisecond), 200, content, false, 1},
		{faultproxy.Flip(), 200, strings.Replace(content, "a", "q", 1), false, 1},
	} {
		t.Run(c.fault.Name, func(t *testing.T) {
			b := newBackend(t)
			p := faultproxy.Start(t, b.address, nil)
			p.Spoil(faultproxy.PutObject, c.fault)
			client := newClient(t, nil)
			status, body, err := ask(t.Context(), client, http.MethodPut, "http://"+p.Address()+"/bucket/t/key")
			require.Equal(t, c.failed, err != nil, "%v", err)
			require.Equal(t, c.status, status)
			if c.body != "" || !c.failed {
				require.Equal(t, c.body, body)
			}
			require.Eventually(t, func() bool { return b.seen.Load() == c.applied }, time.Minute, time.Millisecond)
			_, body, err = ask(t.Context(), client, http.MethodPut, "http://"+p.Address()+"/bucket/t/key")
			require.NoError(t, err, "one fault, one request")
			require.Equal(t, content, body)

			require.Equal(t, 2, p.Count(faultproxy.PutObject))
			first := p.Records()[0]
			require.Equal(t, c.fault.Name, first.Fault)
			require.Equal(t, "t/key", first.Key)
			require.Eventually(t, func() bool { return !p.Records()[0].End.IsZero() }, time.Minute, time.Millisecond)
			require.Equal(t, c.status, p.Records()[0].Status)
		})
	}
}

func TestStall(t *testing.T) {
	b := newBackend(t)
	p := faultproxy.Start(t, b.address, nil)
	client := newClient(t, nil)
	url := "http://" + p.Address() + "/bucket/key"

	released := make(chan struct{})
	p.SetPlan(faultproxy.Always(faultproxy.Stall(released)))
	answered := make(chan string)
	go func() {
		_, body, err := ask(context.Background(), client, http.MethodGet, url)
		answered <- fmt.Sprint(body, err)
	}()
	require.Eventually(t, func() bool { return p.Active() == 1 }, time.Minute, time.Millisecond)
	require.Zero(t, b.seen.Load())
	close(released)
	require.Equal(t, content+"<nil>", <-answered)

	for _, f := range []faultproxy.Fault{faultproxy.Stall(nil), faultproxy.CutAfter(3, faultproxy.Stall(nil))} {
		p.SetPlan(faultproxy.Always(f))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, _, err := ask(ctx, client, http.MethodGet, url)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		cancel()
		require.Eventually(t, func() bool { return p.Active() == 0 }, time.Minute, time.Millisecond, "it is noticed")
	}
}

func TestServerIsAway(t *testing.T) {
	p := faultproxy.Start(t, "127.0.0.1:1", nil)
	_, _, err := ask(t.Context(), newClient(t, nil), http.MethodGet, "http://"+p.Address()+"/bucket/key")
	require.ErrorIs(t, err, io.EOF)
}

func TestTLS(t *testing.T) {
	ca := certtest.New(t)
	p := faultproxy.Start(t, newBackend(t).address, ca.ServerConfig(t, false))
	pem, err := os.ReadFile(ca.File)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(pem))
	client := newClient(t, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
	p.Spoil(faultproxy.GetObject, faultproxy.Pass(), faultproxy.Reset())
	_, body, err := ask(t.Context(), client, http.MethodGet, "https://"+p.Address()+"/bucket/key")
	require.NoError(t, err)
	require.Equal(t, content, body)
	_, _, err = ask(t.Context(), client, http.MethodGet, "https://"+p.Address()+"/bucket/key")
	require.Error(t, err)
}

func TestOperations(t *testing.T) {
	p := faultproxy.Start(t, newBackend(t).address, nil)
	client := newClient(t, nil)
	for _, c := range []struct {
		method, path string
		want         faultproxy.Operation
		key          string
	}{
		{http.MethodGet, "/b/t/k", faultproxy.GetObject, "t/k"},
		{http.MethodGet, "/b/?list-type=2&prefix=t%2F", faultproxy.ListObjects, ""},
		{http.MethodGet, "/b/?location=", faultproxy.BucketLocation, ""},
		{http.MethodHead, "/b/t/k", faultproxy.HeadObject, "t/k"},
		{http.MethodPut, "/b/t/k", faultproxy.PutObject, "t/k"},
		{http.MethodPut, "/b/t/k?partNumber=1&uploadId=x", faultproxy.UploadPart, "t/k"},
		{http.MethodPost, "/b/t/k?uploads=", faultproxy.CreateUpload, "t/k"},
		{http.MethodPost, "/b/t/k?uploadId=x", faultproxy.CompleteUpload, "t/k"},
		{http.MethodPost, "/b/?delete=", faultproxy.DeleteObjects, ""},
		{http.MethodDelete, "/b/t/k", faultproxy.DeleteObject, "t/k"},
		{http.MethodDelete, "/b/t/k?uploadId=x", faultproxy.AbortUpload, "t/k"},
		{http.MethodPatch, "/b/t/k", faultproxy.Other, "t/k"},
	} {
		p.Heal()
		_, _, err := ask(t.Context(), client, c.method, "http://"+p.Address()+c.path)
		require.NoError(t, err)
		require.Equal(t, c.want, p.Records()[0].Operation, c.path)
		require.Equal(t, c.key, p.Records()[0].Key, c.path)
	}
}

func TestSeededIsRepeatable(t *testing.T) {
	plan, again, spoiled := faultproxy.Seeded(7, 0, 0.2), faultproxy.Seeded(7, 0, 0.2), 0
	names := map[string]bool{}
	for n := range 4000 {
		r := faultproxy.Request{N: n, Operation: faultproxy.PutObject}
		f := plan(r)
		require.Equal(t, f.Name, again(r).Name)
		if f.Serve != nil {
			spoiled++
			names[f.Name] = true
		}
	}
	require.InDelta(t, 800, spoiled, 120)
	for _, f := range faultproxy.Any(faultproxy.PutObject, rand.New(rand.NewPCG(1, 1))) {
		require.True(t, names[f.Name], f.Name)
	}
}

func TestHijackedAnswersAreErrors(t *testing.T) {
	p := faultproxy.Start(t, newBackend(t).address, nil)
	p.SetPlan(func(r faultproxy.Request) faultproxy.Fault {
		if r.Range != "" {
			return faultproxy.Close()
		}
		return faultproxy.Pass()
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.Address()+"/b/k", nil)
	require.NoError(t, err)
	req.Header.Set("Range", "bytes=0-1")
	resp, err := newClient(t, nil).Do(req)
	if err == nil {
		resp.Body.Close()
	}
	require.True(t, errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF), "%v", err)
	require.Equal(t, "bytes=0-1", p.Records()[0].Range)
}
