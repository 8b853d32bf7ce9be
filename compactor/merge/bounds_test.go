package merge

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
)

// TestSymbolsAreBounded: a tenant with more names and values than there is memory for is refused before anything is read
// or written for it but symbols.
func TestSymbolsAreBounded(t *testing.T) {
	w := randomWorld(t, rand.New(rand.NewPCG(1, 6)))
	bkt := w.put(t)
	j := w.job(1)
	cfg := Config{Scratch: t.TempDir(), MaxSymbolBytes: 3 * symbolBytes}
	_, err := Run(t.Context(), cfg, bkt, tenantID, j, nil)
	var large *TooLarge
	require.ErrorAs(t, err, &large)
	require.Equal(t, cfg.MaxSymbolBytes, large.Max)
	require.Greater(t, large.Bytes, large.Max)
	require.NoError(t, bkt.List(t.Context(), block.Prefix(tenantID, j.ULID), true, func(o bucket.Object) error {
		t.Errorf("%s was written", o.Key)
		return nil
	}))
	cfg.MaxSymbolBytes = 1 << 20
	_, err = Run(t.Context(), cfg, bkt, tenantID, j, nil)
	require.NoError(t, err)
}

// TestInspectionIsProgress: a damaged input is read once more in full, which may take longer than a job may stand still.
func TestInspectionIsProgress(t *testing.T) {
	w := randomWorld(t, rand.New(rand.NewPCG(1, 6)))
	bkt := w.put(t)
	j := w.job(1)
	key := block.Key(tenantID, j.Inputs[0].Block.ULID, block.IndexName)
	body, err := bkt.Get(t.Context(), key)
	require.NoError(t, err)
	data, err := io.ReadAll(body)
	require.NoError(t, err)
	data[20] ^= 1
	require.NoError(t, bkt.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))))
	var p Progress
	_, err = Run(t.Context(), Config{Scratch: t.TempDir()}, bkt, tenantID, j, &p)
	var damaged *Damaged
	require.ErrorAs(t, err, &damaged)
	require.Equal(t, j.Inputs[0].Block.ULID, damaged.ULID)
	require.GreaterOrEqual(t, p.Snapshot().BytesVerified, int64(len(data)/2))
}
