package manifest

import (
	"log/slog"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const hour = int64(time.Hour / time.Millisecond)

// testBlock returns the n-th block of a tenant: two hours, level 1.
func testBlock(n int) Block {
	var id ulid.ULID
	if err := id.SetTime(uint64(n) + 1); err != nil {
		panic(err)
	}
	id[15] = byte(n)
	mint := int64(n) * 2 * hour
	return Block{
		ULID: id, MinTime: mint, MaxTime: mint + 2*hour, Level: 1, Sources: []ulid.ULID{id},
		Series: 10, Samples: 1000, Chunks: 20, SizeBytes: 4096, Writer: "ingester-0",
	}
}

type testClock struct{ t time.Time }

func (c *testClock) now() time.Time { return c.t }

func newTestOwner(bkt bucket.Bucket, now func() time.Time) *Owner {
	return NewOwner(bkt, now, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

func TestAddAndReload(t *testing.T) {
	clock := &testClock{time.UnixMilli(1_700_000_000_000)}
	bkt := bucket.NewInMemory()
	o := newTestOwner(bkt, clock.now)

	m, err := o.Current(t.Context(), "acme")
	require.NoError(t, err)
	require.Equal(t, &Manifest{Tenant: "acme"}, m, "a tenant without a manifest is at version 0")

	added, err := o.Add(t.Context(), "acme", testBlock(1))
	require.NoError(t, err)
	require.Equal(t, Added{Version: 1}, added)
	added, err = o.Add(t.Context(), "acme", testBlock(0))
	require.NoError(t, err)
	require.Equal(t, Added{Version: 2}, added)
	added, err = o.Add(t.Context(), "acme", testBlock(1))
	require.NoError(t, err)
	require.Equal(t, Added{Version: 1}, added, "the same block again gets the same answer")

	want := []Block{testBlock(0), testBlock(1)}
	want[0].AddedAt, want[0].AddedVersion = clock.t.UnixMilli(), 2
	want[1].AddedAt, want[1].AddedVersion = clock.t.UnixMilli(), 1
	for _, o := range []*Owner{o, newTestOwner(bkt, clock.now)} {
		m, err = o.Current(t.Context(), "acme")
		require.NoError(t, err)
		require.EqualValues(t, 2, m.Version)
		require.Equal(t, want, m.Blocks)
	}
}
