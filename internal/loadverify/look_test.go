package loadverify

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/loadledger"
	"github.com/duramendb/duramen/internal/seriesgen"
)

// behindAnswer does something when an answer has come and before it is read.
type behindAnswer struct {
	next http.RoundTripper
	do   func()
}

func (b *behindAnswer) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	b.do()
	return resp, err
}

// CloseIdleConnections lets Close reach the connections.
func (b *behindAnswer) CloseIdleConnections() { b.next.(*http.Transport).CloseIdleConnections() }

// TestLookWhileARunIsSent: what was acknowledged before the question must be there, what is acknowledged meanwhile may be,
// and what is not claimed behind it must not be.
func TestLookWhileARunIsSent(t *testing.T) {
	p := newPlan(t, nil)
	part := Part{Tenant: 1, FirstPod: 0, LastPod: 1, From: 5, To: 10}
	known := fates{}
	for scrape := range scrapes {
		known[[3]int{1, 0, scrape}] = loadledger.Acknowledged
	}
	known[[3]int{1, 0, 9}] = loadledger.NeverSent
	c := everything(p)
	without := func(scrape int) {
		for series := range seriesgen.SeriesPerPod {
			delete(c.of(p, 1, series).samples, p.Generator(1).Expected(series, scrape).T)
		}
	}
	without(9)

	away := false
	s := serve(t, c, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if away {
				http.Error(w, "zone b is away", http.StatusServiceUnavailable)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	behind := &behindAnswer{next: s.HTTP.Transport, do: func() {}}
	s.HTTP.Transport = behind
	look := func() []Difference {
		t.Helper()
		found, warnings, err := Look(t.Context(), p, known, s, part)
		require.NoError(t, err)
		require.Empty(t, warnings)
		return found
	}
	require.Empty(t, look())
	behind.do = func() { known[[3]int{1, 0, 9}] = loadledger.Acknowledged }
	require.Empty(t, look(), "acknowledged behind the question")
	behind.do = func() {}
	found := look()
	require.NotEmpty(t, found)
	require.Equal(t, Missing, found[0].Kind)

	known[[3]int{1, 0, 9}] = loadledger.NeverSent
	known[[3]int{1, 0, 8}] = loadledger.NeverSent
	found = look()
	require.NotEmpty(t, found)
	require.Equal(t, Invented, found[0].Kind)

	away = true
	_, _, err := Look(t.Context(), p, known, s, part)
	var answer *AnswerError
	require.ErrorAs(t, err, &answer)
	require.Equal(t, http.StatusServiceUnavailable, answer.Status)
	require.Contains(t, answer.Text, "zone b")
}
