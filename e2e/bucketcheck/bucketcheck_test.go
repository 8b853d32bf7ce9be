package bucketcheck_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/e2e/bucketcheck"
)

const tenantID = "acme"

func put(t *testing.T, b bucket.Bucket, key, content string) {
	t.Helper()
	require.NoError(t, b.Put(t.Context(), key, strings.NewReader(content), int64(len(content))))
}

func blockID(n int) ulid.ULID { return ulid.MustNew(uint64(n)+1, bytes.NewReader(make([]byte, 10))) }

// newBucket holds three blocks, listed by as many versions.
func newBucket(t *testing.T) bucket.Bucket {
	t.Helper()
	b := bucket.NewInMemory()
	owner := manifest.NewOwner(b, time.Now, slog.New(slog.DiscardHandler), nil)
	for n := range 3 {
		id := blockID(n)
		put(t, b, block.Key(tenantID, id, "index"), "index")
		put(t, b, block.Key(tenantID, id, "chunks/000001"), "chunks")
		put(t, b, block.Key(tenantID, id, "meta.json"), fmt.Sprintf(`{"version": 1, "ulid": "%s", "maxTime": 1,
			"thanos": {"version": 1, "files": [{"rel_path": "index", "size_bytes": 5},
			{"rel_path": "chunks/000001", "size_bytes": 6}, {"rel_path": "meta.json"}]}}`, id))
		_, err := owner.Add(t.Context(), tenantID, manifest.Block{ULID: id, MaxTime: 1, Level: 1})
		require.NoError(t, err)
	}
	return b
}

func TestCheck(t *testing.T) {
	b := newBucket(t)
	r, err := bucketcheck.Check(t.Context(), b, tenantID)
	require.NoError(t, err)
	require.Equal(t, 3, r.Versions)
	require.Len(t, r.Blocks, 3)
	require.Empty(t, r.Unlisted)

	put(t, b, block.Key(tenantID, blockID(7), "index"), "index")
	r, err = bucketcheck.Check(t.Context(), b, tenantID)
	require.NoError(t, err)
	require.Equal(t, []ulid.ULID{blockID(7)}, r.Unlisted)

	r, err = bucketcheck.Check(t.Context(), b, "nobody")
	require.NoError(t, err)
	require.Zero(t, r.Versions)
}

func TestCheckSeesFaults(t *testing.T) {
	encode := func(t *testing.T, version uint64, blocks ...int) string {
		m := &manifest.Manifest{Tenant: tenantID, Version: version, SwapID: "x"}
		for _, n := range blocks {
			m.Blocks = append(m.Blocks, manifest.Block{ULID: blockID(n), MaxTime: 1, Level: 1, AddedVersion: min(uint64(n)+1, version)})
		}
		data, err := manifest.Encode(m)
		require.NoError(t, err)
		return string(data)
	}
	for name, damage := range map[string]func(*testing.T, bucket.Bucket){
		"follows version": func(t *testing.T, b bucket.Bucket) {
			require.NoError(t, b.Delete(t.Context(), manifest.Key(tenantID, 2)))
		},
		"lost block":      func(t *testing.T, b bucket.Bucket) { put(t, b, manifest.Key(tenantID, 2), encode(t, 2, 3, 4)) },
		"adds no block":   func(t *testing.T, b bucket.Bucket) { put(t, b, manifest.Key(tenantID, 2), encode(t, 2, 0)) },
		"holds version":   func(t *testing.T, b bucket.Bucket) { put(t, b, manifest.Key(tenantID, 2), encode(t, 1, 0)) },
		"decode manifest": func(t *testing.T, b bucket.Bucket) { put(t, b, manifest.Key(tenantID, 2), "") },
		"no meta.json": func(t *testing.T, b bucket.Bucket) {
			require.NoError(t, b.Delete(t.Context(), block.Key(tenantID, blockID(1), "meta.json")))
		},
		"instead of 6": func(t *testing.T, b bucket.Bucket) {
			put(t, b, block.Key(tenantID, blockID(1), "chunks/000001"), "chunk")
		},
		"which nobody writ": func(t *testing.T, b bucket.Bucket) { put(t, b, tenantID+"/temp", "x") },
	} {
		b := newBucket(t)
		damage(t, b)
		_, err := bucketcheck.Check(t.Context(), b, tenantID)
		require.ErrorContains(t, err, name)
	}
}
