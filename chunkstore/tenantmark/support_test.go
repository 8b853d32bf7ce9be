package tenantmark

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a bucket with an owner under one clock.
type world struct {
	t     *testing.T
	at    time.Time
	inner bucket.Bucket
	owner *manifest.Owner
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, at: time.UnixMilli(1_700_000_000_000)}
	w.inner = bucket.NewInMemoryWithClock(w.now)
	w.owner = w.newOwner(w.inner)
	return w
}

func (w *world) now() time.Time { return w.at }

func (w *world) newOwner(bkt bucket.Bucket) *manifest.Owner {
	return manifest.NewOwner(bkt, w.now, slog.New(slog.DiscardHandler), nil)
}

func (w *world) put(keys ...string) {
	w.t.Helper()
	for _, key := range keys {
		require.NoError(w.t, w.inner.Put(w.t.Context(), key, strings.NewReader("x"), 1))
	}
}

// ship puts a block of a tenant into the bucket and announces it.
func (w *world) ship(tenantID string, n byte) {
	w.t.Helper()
	id := w.id(n)
	prefix := tenantID + "/" + id.String() + "/"
	w.put(prefix+"chunks/000001", prefix+"index", prefix+"duramen.idx", prefix+"meta.json")
	_, err := w.owner.Add(w.t.Context(), tenantID, manifest.Block{
		ULID: id, MinTime: w.at.UnixMilli() - 1000, MaxTime: w.at.UnixMilli(), Level: 1, SizeBytes: 10,
	})
	require.NoError(w.t, err)
}

func (w *world) id(n byte) ulid.ULID {
	var id ulid.ULID
	require.NoError(w.t, id.SetTime(uint64(w.at.UnixMilli()))) //nolint:gosec // positive
	id[15] = n
	return id
}

func (w *world) keys(prefix string) []string {
	w.t.Helper()
	var keys []string
	require.NoError(w.t, w.inner.List(w.t.Context(), prefix, true, func(o bucket.Object) error {
		keys = append(keys, o.Key)
		return nil
	}))
	return keys
}

func (w *world) manifest(tenantID string) *manifest.Manifest {
	w.t.Helper()
	m, err := w.newOwner(w.inner).Current(w.t.Context(), tenantID)
	require.NoError(w.t, err)
	return m
}

// fill gives a tenant all kinds of objects that one can have.
func (w *world) fill(tenantID string) {
	w.t.Helper()
	w.ship(tenantID, 1)
	w.ship(tenantID, 2)
	other := w.id(3).String()
	w.put(tenantID+"/bucket-index.json.gz", tenantID+"/markers/"+other+"-deletion-mark.json",
		tenantID+"/"+other+"/index", tenantID+"/duramen/quarantine/"+other+".json", InFolderKey(tenantID),
		tenantID+"/something/of/a/peer")
}
