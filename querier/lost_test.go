package querier

import (
	"bytes"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
)

func TestLostRangesAreSaid(t *testing.T) {
	pts := points(usualCut-9*hour, usualCut, hour/60)
	b := blockOf(blockID(1), pts)
	m := &manifest.Manifest{Version: 1, Blocks: []manifest.Block{b}, Lost: []manifest.LostRange{{
		MinTime: usualCut - 4*hour, MaxTime: usualCut - 2*hour, Reason: "block 01ABC was damaged",
	}}}
	rec := &fakeRecent{t: t, answer: func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return &listQuerier{}, duramenpb.Held{}, nil
	}}
	q := newQuerier(t, rec, &fakeStore{t: t, blocks: map[ulid.ULID][]point{b.ULID: pts}}, &fakeManifests{current: m})
	var log bytes.Buffer
	q.log = slog.New(slog.NewTextHandler(&log, nil))
	h := q.Handler("/prometheus")
	const warning = `"samples from 2026-02-28T21:00:00Z to 2026-02-28T23:00:00Z may be missing: they were lost: ` +
		`block 01ABC was damaged"`
	said := 0
	for _, c := range []struct {
		path  string
		form  []string
		warns bool
	}{
		{"query", []string{"query=m", "time=" + at(14*time.Hour)}, true},
		{"query", []string{"query=m", "time=" + at(16*time.Hour)}, false},
		{"query", []string{"query=m", "time=" + at(13*time.Hour-time.Second)}, true}, // it looks back
		{"query", []string{"query=m", "time=" + at(12*time.Hour)}, false},
		{"query_range", []string{"query=m", "start=" + at(20*time.Hour), "end=" + at(0), "step=600"}, true},
		{"query_range", []string{"query=m", "start=" + at(12*time.Hour), "end=" + at(0), "step=600"}, false},
		{"series", []string{"match[]=m"}, true},
		{"series", []string{"match[]=m", "start=" + at(12*time.Hour)}, false},
		{"labels", nil, true},
		{"labels", []string{"start=" + at(12*time.Hour)}, false},
		{"label/i/values", nil, true},
	} {
		w := do(t, h, http.MethodGet, c.path, form(c.form...))
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		if c.warns {
			said++
			require.Contains(t, w.Body.String(), `"warnings":[`+warning+`]`, c)
		} else {
			require.NotContains(t, w.Body.String(), "warnings", c)
		}
		require.InDelta(t, said, testutil.ToFloat64(q.metrics.lost), 0)
	}
	require.Equal(t, http.StatusOK, read(t, h, readRequest(t, nil, readQuery(0, now.UnixMilli(), everything))).Code)
	require.Contains(t, log.String(), "block 01ABC was damaged", "remote read has no place for a warning but the log")
}

// TestLossOfRecentSamples: a loss is said at once, and by a query that needs no manifest as far as one is known.
func TestLossOfRecentSamples(t *testing.T) {
	m := &manifest.Manifest{Version: 1, Lost: []manifest.LostRange{{
		MinTime: now.UnixMilli() - 3*hour, MaxTime: now.UnixMilli() - 2*hour, Reason: "the write log was damaged",
	}}}
	rec := &fakeRecent{t: t, answer: func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return &listQuerier{}, duramenpb.Held{}, nil
	}}
	manifests := &fakeManifests{current: m}
	q := newQuerier(t, rec, &fakeStore{t: t}, manifests)
	h := q.Handler("/prometheus")
	const warning = "they were lost: the write log was damaged"
	w := do(t, h, http.MethodGet, "query", form("query=m", "time="+at(150*time.Minute)))
	require.Contains(t, w.Body.String(), warning)
	require.Zero(t, manifests.asked, "nobody is asked")
	w = do(t, h, http.MethodGet, "query", form("query=m", "time="+at(time.Hour)))
	require.NotContains(t, w.Body.String(), "warnings")
	w = do(t, h, http.MethodGet, "query_range", form("query=m", "start="+at(20*time.Hour), "end="+at(0), "step=600"))
	require.Contains(t, w.Body.String(), warning)
}
