package querier

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
)

// TestDeletedTenantIsRefused: by the manifest, in both tiers, until nothing is left; then there is nothing, which is no
// error.
func TestDeletedTenantIsRefused(t *testing.T) {
	rec := &fakeRecent{t: t, answer: func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return &listQuerier{}, duramenpb.Held{}, nil
	}}
	for _, c := range []struct {
		doomed *manifest.TenantDeletion
		status int
	}{
		{nil, http.StatusOK},
		{&manifest.TenantDeletion{RequestedAt: 1, GraceUntil: 2}, http.StatusGone},
		{&manifest.TenantDeletion{RequestedAt: 1, GraceUntil: 2, FinishedAt: 3}, http.StatusOK},
	} {
		m := &manifest.Manifest{Version: 1, Doomed: c.doomed}
		h := newQuerier(t, rec, &fakeStore{t: t}, &fakeManifests{current: m}).Handler("/prometheus")
		for _, f := range [][]string{
			{"query", "query=m", "time=" + at(14*time.Hour)},
			{"query", "query=m", "time=" + at(time.Hour)},
			{"query_range", "query=m", "start=" + at(20*time.Hour), "end=" + at(0), "step=600"},
			{"series", "match[]=m"},
			{"labels"},
			{"label/i/values"},
		} {
			w := do(t, h, http.MethodGet, f[0], form(f[1:]...))
			require.Equal(t, c.status, w.Code, "%v: %s", f, w.Body)
		}
		require.Equal(t, c.status, read(t, h, readRequest(t, nil, readQuery(0, now.UnixMilli(), everything))).Code)
	}
}
