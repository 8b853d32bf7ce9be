package querier

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/reader"
	"github.com/duramendb/duramen/chunkstore/tombstone"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// sweptStore is a fakeStore some of whose blocks are gone from the bucket, which is found out by the Select or, late, when
// samples are read.
type sweptStore struct {
	*fakeStore
	gone map[ulid.ULID]bool
	late bool
}

func (s sweptStore) Querier(
	id string, blocks []manifest.Block, hidden *tombstone.Set, mint, maxt int64,
) (storage.Querier, error) {
	q, err := s.fakeStore.Querier(id, blocks, hidden, mint, maxt)
	if err != nil {
		return nil, err
	}
	list := q.(*listQuerier)
	for _, b := range blocks {
		if s.gone[b.ULID] {
			err := errkind.New(errkind.Unavailable, "block %s: %w", b.ULID, reader.ErrGone)
			if s.late {
				return lateQuerier{list, err}, nil
			}
			list.err = err
		}
	}
	return list, nil
}

func (s sweptStore) ChunkQuerier(
	id string, blocks []manifest.Block, hidden *tombstone.Set, mint, maxt int64,
) (storage.ChunkQuerier, error) {
	q, err := s.Querier(id, blocks, hidden, mint, maxt)
	if late, ok := q.(lateQuerier); ok {
		return chunksOf{late}, err
	}
	return listChunkQuerier{q.(*listQuerier)}, err
}

// lateQuerier fails when samples are read, and chunksOf encodes what it returns.
type lateQuerier struct {
	*listQuerier
	err error
}

func (q lateQuerier) Select(
	ctx context.Context, sorted bool, hints *storage.SelectHints, m ...*labels.Matcher,
) storage.SeriesSet {
	set := q.listQuerier.Select(ctx, sorted, hints, m...).(*listSet)
	for i, s := range set.series {
		set.series[i] = &storage.SeriesEntry{
			Lset:             s.Labels(),
			SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator { return failingIterator{chunkenc.NewNopIterator(), q.err} },
		}
	}
	return set
}

type chunksOf struct{ lateQuerier }

func (q chunksOf) Select(
	ctx context.Context, sorted bool, hints *storage.SelectHints, m ...*labels.Matcher,
) storage.ChunkSeriesSet {
	return storage.NewSeriesSetToChunkSet(q.lateQuerier.Select(ctx, sorted, hints, m...))
}

// failingIterator has no samples, as chunkenc.NewNopIterator, and an error.
type failingIterator struct {
	chunkenc.Iterator
	err error
}

func (i failingIterator) Err() error { return i.err }

// swept is a node that knows a manifest whose block has left the bucket. The newest lists another with the same samples,
// unless unchanged.
func swept(t *testing.T, late, unchanged bool) (*Querier, *fakeManifests, *fakeStore) {
	t.Helper()
	pts := points(usualCut-4*hour, usualCut-2*hour, hour/60)
	merged, left := blockOf(blockID(2), pts), blockOf(blockID(1), pts)
	manifests := &fakeManifests{
		current: &manifest.Manifest{Version: 1, Blocks: []manifest.Block{left}},
		fresh:   &manifest.Manifest{Version: 2, Blocks: []manifest.Block{merged}},
	}
	if unchanged {
		manifests.fresh = nil
	}
	rec := &fakeRecent{t: t, answer: func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return &listQuerier{points: points(usualCut, usualCut+hour, hour/60)}, duramenpb.Held{}, nil
	}}
	store := &fakeStore{t: t, blocks: map[ulid.ULID][]point{merged.ULID: pts, left.ULID: pts}}
	q := newQuerier(t, rec, sweptStore{store, map[ulid.ULID]bool{left.ULID: true}, late}, manifests)
	return q, manifests, store
}

// sweptRequests reach below the cut by all routes; late are those that read samples.
func sweptRequests(t *testing.T, late bool) map[string]func(h http.Handler) *httptest.ResponseRecorder {
	t.Helper()
	get := func(path string, kv ...string) func(h http.Handler) *httptest.ResponseRecorder {
		return func(h http.Handler) *httptest.ResponseRecorder { return do(t, h, http.MethodGet, path, form(kv...)) }
	}
	remote := func(accept ...prompb.ReadRequest_ResponseType) func(h http.Handler) *httptest.ResponseRecorder {
		body := readRequest(t, accept, readQuery(0, now.UnixMilli(), everything))
		return func(h http.Handler) *httptest.ResponseRecorder { return read(t, h, body) }
	}
	start := "start=" + at(16*time.Hour)
	requests := map[string]func(h http.Handler) *httptest.ResponseRecorder{
		"query":       get("query", "query=sum(m) + sum(count_over_time(m[1h]))", "time="+at(13*time.Hour)),
		"query_range": get("query_range", "query=m", start, "end="+at(10*time.Hour), "step=600"),
		"read":        remote(), "stream": remote(streamed),
	}
	if !late {
		requests["series"] = get("series", "match[]=m", start)
		requests["several series"] = get("series", "match[]=m", "match[]=up", start)
		requests["labels"] = get("labels", start)
		requests["label values"] = get("label/i/values", start)
	}
	return requests
}

func TestGoneBlockIsPlannedAgainOnAFreshManifest(t *testing.T) {
	for _, late := range []bool{false, true} {
		right, rightManifests, _ := swept(t, late, false)
		rightManifests.current = rightManifests.fresh
		want := right.Handler("/prometheus")
		q, manifests, store := swept(t, late, false)
		h, old := q.Handler("/prometheus"), manifests.current
		for name, request := range sweptRequests(t, late) {
			manifests.current = old
			w := request(h)
			require.Equal(t, http.StatusOK, w.Code, "%s, late %t: %s", name, late, w.Body)
			require.Equal(t, request(want).Body.Bytes(), w.Body.Bytes(), "%s, late %t", name, late)
			require.Equal(t, manifests.fresh, manifests.current, "%s was answered from the old manifest", name)
			for _, o := range store.opened {
				require.Equal(t, 1, o.closed)
			}
		}
	}
}

func TestGoneBlockThatTheNewestManifestListsIsDamage(t *testing.T) {
	for _, late := range []bool{false, true} {
		q, manifests, store := swept(t, late, true)
		h := q.Handler("/prometheus")
		for name, request := range sweptRequests(t, late) {
			store.opened, manifests.asked = nil, 0
			w := request(h)
			require.Equal(t, http.StatusInternalServerError, w.Code, "%s, late %t: %s", name, late, w.Body)
			require.Contains(t, w.Body.String(), "tenant t1: the newest manifest lists a block that is not in the bucket: ", name)
			require.Contains(t, w.Body.String(), "block "+blockID(1).String(), name)
			require.LessOrEqual(t, len(store.opened), 2, "%s: no third attempt", name)
			require.Equal(t, 2, manifests.asked, name)
			for _, o := range store.opened {
				require.Equal(t, 1, o.closed)
			}
		}
	}
}

func TestFederationPlansAgainToo(t *testing.T) {
	q, _, _ := swept(t, false, false)
	pts := []point{{series: 1, t: now.UnixMilli() - 60_000, v: 4}}
	left, merged := blockOf(blockID(1), pts), blockOf(blockID(2), pts)
	q.store = sweptStore{
		&fakeStore{t: t, blocks: map[ulid.ULID][]point{left.ULID: pts, merged.ULID: pts}},
		map[ulid.ULID]bool{left.ULID: true},
		false,
	}
	q.versions.source = &fakeManifests{
		current: &manifest.Manifest{Version: 1, Blocks: []manifest.Block{left}},
		fresh:   &manifest.Manifest{Version: 2, Blocks: []manifest.Block{merged}},
	}
	q.floors.raise(tenantID, now.UnixMilli(), 0) // an ingester with a new disk
	w := federated(t.Context(), q.Federate(), nil, "m")
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	require.Contains(t, w.Body.String(), `m{i="1",instance=""} 4`)
}

func TestStreamThatHasBegunIsNotBegunAgain(t *testing.T) {
	q, _, _ := swept(t, false, false)
	calls := 0
	err := q.again(as(t, tenantID), func() bool { return false }, func(context.Context) error {
		calls++
		return reader.ErrGone
	})
	require.ErrorIs(t, err, reader.ErrGone)
	require.Equal(t, 1, calls)
}
