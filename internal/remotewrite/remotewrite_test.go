package remotewrite

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPush(t *testing.T) {
	var got *http.Request
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, "slowly")
	}))
	defer server.Close()
	c := &Client{URL: server.URL + "/push", Tenant: "a", UserAgent: "test", HTTP: server.Client()}

	a, err := c.Push(t.Context(), V1, []byte("one"))
	require.NoError(t, err)
	require.Equal(t, "one", string(body))
	require.Equal(t, "/push", got.URL.Path)
	require.Equal(t, "a", got.Header.Get("X-Scope-OrgID"))
	require.Equal(t, "test", got.UserAgent())
	require.Equal(t, "snappy", got.Header.Get("Content-Encoding"))
	require.Equal(t, "application/x-protobuf", got.Header.Get("Content-Type"))
	require.Equal(t, "0.1.0", got.Header.Get("X-Prometheus-Remote-Write-Version"))
	require.Equal(t, http.StatusTooManyRequests, a.Status)
	require.Equal(t, "slowly", a.Body)
	require.True(t, a.Retry())
	require.False(t, a.OK())
	require.Equal(t, 7*time.Second, a.RetryAfter(time.Now()))

	_, err = c.Push(t.Context(), V2, []byte("two"))
	require.NoError(t, err)
	require.Equal(t, "application/x-protobuf;proto=io.prometheus.write.v2.Request", got.Header.Get("Content-Type"))
	require.Equal(t, "2.0.0", got.Header.Get("X-Prometheus-Remote-Write-Version"))

	server.Close()
	_, err = c.Push(t.Context(), V1, nil)
	require.Error(t, err)
}

// TestARequestThatCannotBeBuilt is told from one that got no answer.
func TestARequestThatCannotBeBuilt(t *testing.T) {
	for _, c := range []Client{
		{URL: "http://localhost:1/\n"}, {URL: "ftp://localhost:1"}, {URL: "http:///push"}, {URL: "http://localhost:1", Tenant: "a\nb"},
	} {
		c.HTTP = http.DefaultClient
		_, err := c.Push(t.Context(), V1, nil)
		require.ErrorIs(t, err, ErrRequest, c.URL)
	}
	c := Client{URL: "http://localhost:1", Tenant: "ä b", HTTP: http.DefaultClient}
	_, err := c.Push(t.Context(), V1, nil)
	require.Error(t, err)
	require.NotErrorIs(t, err, ErrRequest)
}

func TestAnswers(t *testing.T) {
	now := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	after := func(value string) time.Duration {
		return Answer{Header: http.Header{"Retry-After": {value}}}.RetryAfter(now)
	}
	require.Equal(t, 3*time.Second, after("Tue, 01 Sep 2026 12:00:03 GMT"))
	require.Zero(t, after("Tue, 01 Sep 2026 11:00:00 GMT"))
	require.Zero(t, after("soon"))
	require.Zero(t, after("-4"))
	require.Zero(t, Answer{}.RetryAfter(now))

	written := func(samples, histograms string) (int, bool) {
		h := http.Header{}
		if samples != "" {
			h.Set("X-Prometheus-Remote-Write-Samples-Written", samples)
		}
		if histograms != "" {
			h.Set("X-Prometheus-Remote-Write-Histograms-Written", histograms)
		}
		return Answer{Header: h}.Written()
	}
	n, ok := written("40", "2")
	require.True(t, ok)
	require.Equal(t, 42, n)
	n, ok = written("0", "")
	require.True(t, ok)
	require.Zero(t, n)
	_, ok = written("", "")
	require.False(t, ok)

	for status, want := range map[int]struct{ ok, retry bool }{
		200: {true, false}, 204: {true, false}, 400: {false, false}, 404: {false, false}, 429: {false, true},
		500: {false, true}, 503: {false, true},
	} {
		a := Answer{Status: status}
		require.Equal(t, want.ok, a.OK(), status)
		require.Equal(t, want.retry, a.Retry(), status)
	}
}
