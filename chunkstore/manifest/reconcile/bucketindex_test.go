package reconcile

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

const indexKey = testTenant + "/bucket-index.json.gz"

// readIndex returns the index as JSON.
func readIndex(t *testing.T, bkt bucket.Bucket) string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader([]byte(mustGet(t, bkt, indexKey))))
	require.NoError(t, err)
	data, err := io.ReadAll(z)
	require.NoError(t, err)
	return string(data)
}

func indexed(t *testing.T, bkt bucket.Bucket) []ulid.ULID {
	t.Helper()
	var x bucketIndex
	require.NoError(t, json.Unmarshal([]byte(readIndex(t, bkt)), &x))
	var out []ulid.ULID
	for _, b := range x.Blocks {
		out = append(out, b.ID)
	}
	return out
}

// TestBucketIndexIsThatOfThePeers spells out what Cortex and Mimir decode.
func TestBucketIndexIsThatOfThePeers(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0, writer: ingester}, spec{n: 1})
	put(t, f.bkt, block.Key(testTenant, id(1), "chunks/000002"), "x")
	put(t, f.bkt, block.Key(testTenant, id(1), "chunks/000003"), "x")
	_, err := f.o.Swap(t.Context(), testTenant, manifest.Change{Drop: ids(0)})
	require.NoError(t, err)
	f.add(spec{n: 2})
	f.pass()
	require.JSONEq(t, `{
		"version": 1,
		"blocks": [
			{"block_id": "`+id(1).String()+`", "min_time": 7200000, "max_time": 14400000, "segments_format": "1b6d",
				"segments_num": 3, "uploaded_at": 8640000},
			{"block_id": "`+id(2).String()+`", "min_time": 14400000, "max_time": 21600000, "segments_format": "1b6d",
				"segments_num": 1, "uploaded_at": 8640000}
		],
		"block_deletion_marks": [{"block_id": "`+id(0).String()+`", "deletion_time": 8640000}],
		"updated_at": 8640000
	}`, readIndex(t, f.bkt))
}

func TestBucketIndexIsWrittenWhenDue(t *testing.T) {
	f := newFixture(t)
	written := func() int { return int(testutil.ToFloat64(f.r.metrics.peerFiles)) }
	f.pass()
	require.Zero(t, written(), "a bucket without tenants")
	f.add(spec{n: 0})
	f.pass()
	f.pass()
	require.Equal(t, 1, written())
	f.add(spec{n: 1})
	f.pass()
	require.Equal(t, 2, written())
	f.advance(indexRefresh)
	f.pass()
	require.Equal(t, 3, written(), "peers refuse an index that is old")
	require.Contains(t, readIndex(t, f.bkt), `"updated_at":8641200`)

	f.r.cfg.PeerFiles = false
	f.advance(indexRefresh)
	f.pass()
	require.Equal(t, 3, written())
}

// TestChangesArePublished: with neither a pass nor a listing of the tenant, what this process changes is in the index.
func TestChangesArePublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.r.cfg.ReconcileInterval = 24 * time.Hour
		s := f.r.Service()
		require.NoError(t, s.Start(t.Context()))
		time.Sleep(time.Minute) // the first pass is over
		f.add(spec{n: 0}, spec{n: 1})
		synctest.Wait()
		require.Empty(t, there(t, f.bkt, indexKey), "changes are gathered")
		time.Sleep(publishDelay)
		synctest.Wait()
		require.Equal(t, ids(0, 1), indexed(t, f.bkt))
		require.Contains(t, readIndex(t, f.bkt), `"segments_num":1`)
		require.EqualValues(t, 1, testutil.ToFloat64(f.r.metrics.peerFiles))

		f.bkt.SetPlan(faultbucket.On("Put", faultbucket.Before))
		f.announce(2)
		time.Sleep(publishDelay)
		synctest.Wait()
		f.bkt.SetPlan(nil)
		require.Equal(t, ids(0, 1), indexed(t, f.bkt))
		require.EqualValues(t, 1, testutil.ToFloat64(f.r.metrics.peerFailures))
		time.Sleep(publishRetry)
		synctest.Wait()
		require.Equal(t, ids(0, 1, 2), indexed(t, f.bkt), "tried again")
		require.NoError(t, s.Stop())
	})
}

// TestIndexOfAnEarlierProcessIsUsed: what is known need not be listed.
func TestIndexOfAnEarlierProcessIsUsed(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0}, spec{n: 1})
	f.pass()
	f.add(spec{n: 2})
	again := f.reconciler(newOwner(f.bkt, f.clock))
	from := len(f.bkt.Ops())
	require.NoError(t, again.publish(t.Context(), testTenant))
	var folders []string
	for _, op := range f.bkt.Ops()[from:] {
		if op.Method == "List" && op.Key != manifest.Prefix(testTenant) {
			folders = append(folders, op.Key)
		}
	}
	require.Equal(t, []string{block.Prefix(testTenant, id(2))}, folders)
	require.Equal(t, ids(0, 1, 2), indexed(t, f.bkt))

	put(t, f.bkt, indexKey, "damaged")
	require.NoError(t, f.reconciler(newOwner(f.bkt, f.clock)).publish(t.Context(), testTenant))
	require.Equal(t, ids(0, 1, 2), indexed(t, f.bkt))
}

func FuzzDecodeIndex(f *testing.F) {
	data, err := (&bucketIndex{Version: 1, Blocks: []indexBlock{{ID: id(1)}}}).encode()
	require.NoError(f, err)
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = decodeIndex(bytes.NewReader(data))
	})
}
