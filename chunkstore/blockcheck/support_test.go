package blockcheck

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/rawblock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tenantID = "team-a"

// shape says what a block shall hold.
type shape struct {
	series, samples int
	start, step     int64  // of the first sample and between samples, in milliseconds
	pad             string // goes into a label of each series
}

// writeBlock writes a block with floats and both kinds of histograms, and returns its folder.
func writeBlock(t testing.TB, dir string, s shape) string {
	t.Helper()
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), dir, 1<<40)
	require.NoError(t, err)
	defer func() { require.NoError(t, w.Close()) }()
	app := w.AppenderV2(t.Context())
	for i := range s.series {
		lset := labels.FromStrings(labels.MetricName, fmt.Sprintf("m%d", i%5), "i", fmt.Sprintf("%06d%s", i, s.pad), "mod", fmt.Sprint(i%3))
		for n := range s.samples {
			var h *histogram.Histogram
			var fh *histogram.FloatHistogram
			switch i % 5 {
			case 3:
				h = tsdbutil.GenerateTestHistogram(int64(n))
			case 4:
				fh = tsdbutil.GenerateTestFloatHistogram(int64(n))
			}
			_, err := app.Append(0, lset, 0, s.start+int64(n)*s.step, float64(n*i%7), h, fh, storage.AOptions{})
			require.NoError(t, err)
		}
	}
	require.NoError(t, app.Commit())
	id, err := w.Flush(t.Context())
	require.NoError(t, err)
	return filepath.Join(dir, id.String())
}

// upload puts the block of a folder into a bucket in memory.
func upload(t testing.TB, dir string) (*bucket.InMemory, ulid.ULID) {
	t.Helper()
	bkt := bucket.NewInMemory()
	b, err := block.Upload(t.Context(), bkt, tenantID, dir, "test")
	require.NoError(t, err)
	return bkt, b.ULID
}

// files is a block in memory.
type files map[string][]byte

// load reads the files of a block in a bucket.
func load(t testing.TB, bkt bucket.Bucket, id ulid.ULID) files {
	t.Helper()
	src := InBucket(bkt, tenantID, id)
	sizes, err := src.List(t.Context())
	require.NoError(t, err)
	f := files{}
	for name, size := range sizes {
		f[name] = make([]byte, size)
		require.NoError(t, src.ReadAt(t.Context(), name, f[name], 0))
	}
	return f
}

func (f files) clone() files {
	c := files{}
	for name, data := range f {
		c[name] = append([]byte(nil), data...)
	}
	return c
}

// check returns the faults of a block in memory as lines.
func (f files) check(t testing.TB, id ulid.ULID) []string {
	t.Helper()
	faults, sum, err := Gather(t.Context(), memory(f), id, 1000)
	require.NoError(t, err)
	lines := make([]string, len(faults))
	for i, fault := range faults {
		lines[i] = fault.String()
	}
	require.Equal(t, len(lines), min(1000, sum.Faults))
	return lines
}

// requireFault insists on a fault that contains all parts.
func requireFault(t testing.TB, lines []string, parts ...string) {
	t.Helper()
	for _, line := range lines {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(line, p)
		}
		if all {
			return
		}
	}
	require.Fail(t, "no such fault", "%q in\n%s", parts, strings.Join(lines, "\n"))
}

// reseal computes the checksum of data[from:to] anew, which stands behind it.
func reseal(data []byte, from, to int64) {
	binary.BigEndian.PutUint32(data[to:], crc32.Checksum(data[from:to], rawblock.Castagnoli()))
}

// sample is for building chunks by hand.
type sample struct {
	t int64
	v float64
}

func xorChunk(t testing.TB, samples ...sample) []byte {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	require.NoError(t, err)
	for _, s := range samples {
		app.Append(0, s.t, s.v)
	}
	return c.Bytes()
}
