package reconcile

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testTenant = "acme"
	hour       = int64(time.Hour / time.Millisecond)
)

// start is when the tests' clocks begin: 100 days after the first block's samples.
var start = time.UnixMilli(100 * 24 * hour)

// clock is one for the store and for us.
type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

// id returns the ULID of the n-th block of a test.
func id(n int) ulid.ULID {
	var u ulid.ULID
	if err := u.SetTime(uint64(start.UnixMilli()) - uint64(1000*hour) + uint64(n)); err != nil { //nolint:gosec // positive
		panic(err)
	}
	u[15] = byte(n)
	return u
}

func ids(ns ...int) []ulid.ULID {
	var out []ulid.ULID
	for _, n := range ns {
		out = append(out, id(n))
	}
	return out
}

// spec describes a block for putBlock.
type spec struct {
	n       int
	sources []int  // empty: itself
	writer  string // empty: a peer's
	labels  map[string]string
	change  func(m *block.Meta)
	noList  bool // meta.json does not list the objects
	tenant  string
}

func (s spec) meta() *block.Meta {
	sources := s.sources
	if sources == nil {
		sources = []int{s.n}
	}
	m := &block.Meta{BlockMeta: tsdb.BlockMeta{
		ULID: id(s.n), Version: 1, MinTime: int64(sources[0]) * 2 * hour, MaxTime: int64(sources[len(sources)-1]+1) * 2 * hour,
		Stats:      tsdb.BlockStats{NumSamples: 100, NumFloatSamples: 100, NumChunks: 10, NumSeries: 5},
		Compaction: tsdb.BlockMetaCompaction{Level: 1, Sources: ids(sources...)},
	}}
	if len(sources) > 1 {
		m.Compaction.Level = 2
	}
	m.Thanos = &block.Thanos{Version: 1, Labels: s.labels, Source: "test"}
	if !s.noList {
		m.Thanos.Files = []block.File{
			{Name: "chunks/000001", SizeBytes: 11}, {Name: "index", SizeBytes: 7}, {Name: "meta.json"},
		}
	}
	if s.writer != "" {
		m.Duramen = &block.Duramen{Writer: s.writer, Version: 1}
	}
	if s.change != nil {
		s.change(m)
	}
	return m
}

// putBlock puts a block of 11 bytes of chunks and 7 of index into the bucket and returns its entry.
func putBlock(t *testing.T, bkt bucket.Bucket, s spec) manifest.Block {
	t.Helper()
	m := s.meta()
	data, err := m.Marshal()
	require.NoError(t, err)
	tenantID := testTenant
	if s.tenant != "" {
		tenantID = s.tenant
	}
	for name, content := range map[string]string{
		"chunks/000001": "eleven bytes", "index": "seven b", "meta.json": string(data),
	} {
		if name == "chunks/000001" {
			content = content[:11]
		}
		put(t, bkt, block.Key(tenantID, id(s.n), name), content)
	}
	return m.ManifestBlock(int64(len(data)))
}

func put(t *testing.T, bkt bucket.Bucket, key, content string) {
	t.Helper()
	require.NoError(t, bkt.Put(t.Context(), key, strings.NewReader(content), int64(len(content))))
}

func mark(t *testing.T, bkt bucket.Bucket, n int) {
	t.Helper()
	put(t, bkt, block.Key(testTenant, id(n), deletionMarkName), `{"id":"`+id(n).String()+`","version":1,"deletion_time":1}`)
}

func markGlobally(t *testing.T, bkt bucket.Bucket, n int) {
	t.Helper()
	put(t, bkt, globalMarkKey(testTenant, id(n), deletionMarkName), `{}`)
}

// there returns the keys of the tenant's objects.
func there(t *testing.T, bkt bucket.Bucket, prefix string) []string {
	t.Helper()
	var keys []string
	require.NoError(t, bkt.List(t.Context(), prefix, true, func(o bucket.Object) error {
		keys = append(keys, o.Key)
		return nil
	}))
	return keys
}

func listed(m *manifest.Manifest) []ulid.ULID {
	var out []ulid.ULID
	for i := range m.Blocks {
		out = append(out, m.Blocks[i].ULID)
	}
	return out
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newOwner(bkt bucket.Bucket, c *clock) *manifest.Owner {
	return manifest.NewOwner(bkt, c.now, discard(), nil)
}

func newest(t *testing.T, bkt bucket.Bucket, c *clock) *manifest.Manifest {
	t.Helper()
	m, err := newOwner(bkt, c).Current(t.Context(), testTenant)
	require.NoError(t, err)
	return m
}
