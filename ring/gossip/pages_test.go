package gossip

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/ring"
)

// get returns what a handler answers.
func get(t *testing.T, handler http.HandlerFunc, method, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	handler(w, r)
	return w
}

// TestForgetting (rule 19): without an operator's word only what is proven, with it what is dead.
func TestForgetting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a-0", "b-0", "c-0", "a-1")
		three(w)
		w.at("a-1").activate()
		w.eventually("four", func() bool { return w.agree(4) })
		forget := func(query string) *httptest.ResponseRecorder {
			return get(t, w.at("b-0").ServeForget, http.MethodPost, "/ring/forget?"+query)
		}
		require.Equal(t, http.StatusMethodNotAllowed, get(t, w.at("b-0").ServeForget, http.MethodGet, "/ring/forget?instance=a-1").Code)
		require.Equal(t, http.StatusBadRequest, forget("").Code)
		require.Equal(t, http.StatusBadRequest, forget("instance=a-1&data-loss=yes").Code)
		require.Equal(t, http.StatusNotFound, forget("instance=a-7&data-loss=accept").Code)
		require.Equal(t, http.StatusUnprocessableEntity, forget("instance=a-1&data-loss=accept").Code, "it is alive")

		w.pass(10 * time.Second) // a heartbeat of a time when all were there
		w.at("a-1").kill()
		w.at("a-0").kill()
		w.eventually("two are dead", func() bool { return w.agree(2) })
		w.pass(2 * forgetInterval)
		require.Len(t, w.at("b-0").Ring().Ingesters(), 4, "nothing proves what they had")
		page := w.at("b-0").RingPage()
		for _, m := range page.Members {
			require.Equal(t, m.ID[0] == 'a', len(m.NotForgotten) > 0, m.ID)
		}
		answer := forget("instance=a-1")
		require.Equal(t, http.StatusUnprocessableEntity, answer.Code)
		require.Contains(t, answer.Body.String(), "data-loss=accept")
		require.Equal(t, http.StatusOK, forget("instance=a-1&data-loss=accept").Code)
		w.eventually("one is forgotten", func() bool { return w.all(func(h *host) bool { return len(h.Ring().Ingesters()) == 3 }) })
		require.True(t, w.at("c-0").RingPage().Forgotten[0].LossAccepted)

		for _, name := range []string{"b-0", "c-0"} {
			w.at(name).Update(func(m *ring.Member) { m.ShippedUpTo = time.Now().Add(4 * time.Hour).UnixMilli() })
		}
		w.eventually("the other one by itself", func() bool {
			return w.all(func(h *host) bool { return len(h.Ring().Ingesters()) == 2 })
		})
		w.pass(2 * saveInterval)
		for _, name := range []string{"b-0", "c-0"} {
			w.at(name).kill()
		}
		w.at("b-0").activate()
		require.Len(t, w.at("b-0").RingPage().Forgotten, 2, "what is forgotten stays so over a restart of all")
	})
}

func TestRingPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a-0", "b-0", "c-0", "query")
		w.at("c-0").clock = -time.Minute
		w.at("b-0").clock = 5 * time.Second
		three(w)
		w.at("query").activate(func(_ *Config, s *Self) { s.Zone, s.Roles = "", []ring.Role{ring.RoleQuerier, "<script>"} })
		w.pass(time.Minute)

		h := w.at("a-0")
		answer := get(t, h.ServeRing, http.MethodGet, "/ring", "Accept", "application/json")
		require.Equal(t, "application/json", answer.Header().Get("Content-Type"))
		var page RingPage
		require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &page))
		require.Equal(t, "a-0", page.Self)
		require.Equal(t, 3, page.ReplicationFactor)
		require.Len(t, page.Members, 4)
		require.Equal(t, 4, strings.Count(answer.Body.String(), `"zone":"`), "each has one, if only an empty one")
		for _, m := range page.Members {
			require.True(t, m.Alive, m.ID)
			require.Less(t, m.HeartbeatAge, 15.)
			switch m.ID {
			case "c-0":
				require.InDelta(t, -60, m.ClockSkew, 3)
			default:
				require.Zero(t, m.ClockSkew, m.ID)
			}
			if m.Has(ring.RoleIngester) {
				require.InDelta(t, 1, m.Share, 1e-9)
				require.Equal(t, "zone-"+m.ID[:1], m.EffectiveZone)
			}
		}
		require.InDelta(t, 1, testutil.ToFloat64(h.metrics.members.WithLabelValues("querier", "ACTIVE")), 0)
		require.Equal(t, 1, h.skewedMembers())
		require.Equal(t, 3, w.at("c-0").skewedMembers(), "it sees all others ahead")

		for _, target := range []string{"/ring", "/ring?format=html"} {
			answer = get(t, h.ServeRing, http.MethodGet, target, "Accept", "text/html,application/json")
			require.Equal(t, "text/html; charset=utf-8", answer.Header().Get("Content-Type"))
			require.Contains(t, answer.Body.String(), "clock off by -60 s")
			require.NotContains(t, answer.Body.String(), "<script>")
		}
		answer = get(t, h.ServeMemberlist, http.MethodGet, "/memberlist?format=json")
		var list MemberlistPage
		require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &list))
		require.Len(t, list.Members, 4)
		require.Empty(t, list.Missing)
		require.Contains(t, get(t, h.ServeMemberlist, http.MethodGet, "/memberlist").Body.String(), "Not encrypted")

		w.at("b-0").kill()
		w.eventually("it is missing", func() bool { return len(h.MemberlistPage().Missing) == 1 })
		w.eventually("it is dead", func() bool {
			return testutil.ToFloat64(h.metrics.members.WithLabelValues("ingester", stateDead)) == 1
		})
		require.Contains(t, get(t, h.ServeRing, http.MethodGet, "/ring").Body.String(), "no heartbeat")
	})
}
