package reader

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/internal/errkind"
)

// TestAChunkThatEndsEarlyIsNoShorterAnswer: the checksum of a series' first chunk is right and its content is not. The
// chunks behind it are sound, and their samples alone are no answer.
func TestAChunkThatEndsEarlyIsNoShorterAnswer(t *testing.T) {
	f := &fixture{bkt: bucket.NewInMemory()}
	f.add(t, writeBlock(t, rand.New(rand.NewPCG(1, 1)), t.TempDir(), 1, 0, 30_000, 30))
	promiseMoreSamples(t, f)
	q, err := f.reader(t, f.bkt).Querier(tenantID, f.blocks, nil, 0, 30_000)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	all := labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, ".+")
	for name, read := range map[string]func(chunkenc.Iterator){
		"next": func(it chunkenc.Iterator) {
			for it.Next() != chunkenc.ValNone {
				_ = it.AtT()
			}
		},
		"seek": func(it chunkenc.Iterator) {
			for at := int64(0); it.Seek(at) != chunkenc.ValNone; at += 900 {
				_ = it.AtT()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			set := q.Select(t.Context(), false, &storage.SelectHints{Start: 0, End: 30_000}, all)
			require.True(t, set.Next())
			it := set.At().Iterator(nil)
			read(it)
			require.ErrorIs(t, it.Err(), ErrDamaged)
			require.Equal(t, errkind.Corrupt, errkind.Of(it.Err()))
		})
	}
}

// promiseMoreSamples raises the number of samples that the first chunk of the only block says it has.
func promiseMoreSamples(t *testing.T, f *fixture) {
	t.Helper()
	key := segmentKey(tenantID, f.blocks[0].ULID, 0)
	segment := readAll(t, f.bkt, key)
	data, enc, err := decodeRecord(segment[chunks.SegmentHeaderSize:])
	require.NoError(t, err)
	require.Equal(t, chunkenc.EncXOR, enc)
	size := len(encodeRecord(enc, data))
	data = bytes.Clone(data)
	binary.BigEndian.PutUint16(data, 60_000)
	copy(segment[chunks.SegmentHeaderSize:], encodeRecord(enc, data))
	require.Less(t, chunks.SegmentHeaderSize+size, len(segment), "there are chunks behind it")
	put(t, f.bkt, key, segment)
}
