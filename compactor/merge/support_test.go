package merge

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
)

// openBlock opens a block of the bucket with Prometheus' own reader.
func openBlock(t testing.TB, bkt bucket.Bucket, j Job) *tsdb.Block {
	t.Helper()
	dir := filepath.Join(t.(interface{ TempDir() string }).TempDir(), j.ULID.String())
	prefix := block.Prefix(tenantID, j.ULID)
	require.NoError(t, bkt.List(t.Context(), prefix, true, func(o bucket.Object) error {
		name := filepath.Join(dir, filepath.FromSlash(strings.TrimPrefix(o.Key, prefix)))
		if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
			return err
		}
		body, err := bkt.Get(t.Context(), o.Key)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(body)
		require.NoError(t, err)
		require.NoError(t, body.Close())
		return os.WriteFile(name, data, 0o600)
	}))
	b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), dir, nil, nil)
	require.NoError(t, err)
	return b
}

func newBlockQuerier(b *tsdb.Block) (storage.Querier, error) {
	return tsdb.NewBlockQuerier(b, b.MinTime(), b.MaxTime())
}
