package blocks

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/cmd/duramenctl/store"
	"github.com/duramendb/duramen/internal/cli"
)

func verifyTenant(t *testing.T, dir, tenantID, format string, now time.Time) (out string, _ error) {
	t.Helper()
	var b bytes.Buffer
	env := cli.Env{Stdout: &b, Stderr: &bytes.Buffer{}, Getenv: func(string) string { return "" }}
	v := Verification{Bucket: store.Flags{Bucket: dir}, Format: format, Show: 20}
	err := v.Run(t.Context(), env, tenantID, now)
	return b.String(), err
}

// TestVerifyAccountsForSamples: what was replaced or dropped is accounted for, an upload is on its way for an hour, and a
// block whose samples are in no listed one is found.
func TestVerifyAccountsForSamples(t *testing.T) {
	dir, ids := newBucket(t, 4, "a")
	now := time.Now()
	out, err := verifyTenant(t, dir, "a", "table", now)
	require.NoError(t, err, out)
	require.Contains(t, out, "4 blocks of 1 tenants")
	require.Contains(t, out, "version 4 lists blocks of 4 sources, 0 of them twice; 0 unlisted blocks have samples")

	bkt, err := bucket.NewFilesystem(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, bkt.Close()) }()
	owner := manifest.NewOwner(bkt, time.Now, slog.New(slog.DiscardHandler), nil)
	m, err := owner.Refresh(t.Context(), "a")
	require.NoError(t, err)
	swap := func(c manifest.Change) {
		_, err := owner.Swap(t.Context(), "a", c)
		require.NoError(t, err)
	}
	merged := addBlock(t, bkt, "a", 9)
	merged.Sources = []ulid.ULID{ids["a"][0], ids["a"][1]}
	merged.Level, merged.MinTime, merged.MaxTime = 2, m.Blocks[0].MinTime, m.Blocks[1].MaxTime
	swap(manifest.Change{Add: []manifest.Block{merged}, Replace: []ulid.ULID{ids["a"][0], ids["a"][1]}})
	swap(manifest.Change{Drop: []ulid.ULID{ids["a"][2]}})
	out, err = verifyTenant(t, dir, "a", "table", now)
	require.ErrorContains(t, err, "1 of 2 blocks have faults", "the entry of the block does not fit its meta.json")
	require.Contains(t, out, "version 6 lists blocks of 3 sources, 0 of them twice; 0 unlisted blocks have samples")

	stray := addBlock(t, bkt, "a", 11).ULID
	out, err = verifyTenant(t, dir, "a", "table", now)
	require.NotContains(t, err.Error(), "in no listed block")
	require.Contains(t, out, "a/"+stray.String()+": written ")
	require.Contains(t, out, ", on its way into the manifest\n")
	out, err = verifyTenant(t, dir, "a", "table", now.Add(2*time.Hour))
	require.ErrorContains(t, err, "1 blocks in the bucket have samples that are in no listed block")
	require.ErrorIs(t, err, cli.ErrWrong)
	require.Contains(t, out, "a/"+stray.String()+": it is in no manifest, and 1 of its sources are in no listed block\n")

	// A block that a peer was to delete left, and what the peer made of it never came.
	swap(manifest.Change{Unlist: []ulid.ULID{ids["a"][3]}})
	out, err = verifyTenant(t, dir, "a", "json", now.Add(2*time.Hour))
	require.ErrorContains(t, err, "2 blocks in the bucket have samples that are in no listed block")
	require.Contains(t, out, `{"block":"`+ids["a"][3].String()+`","removed":true,"sources":["`+ids["a"][3].String()+`"],`)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "a", stray.String(), block.MetaName), []byte("{"), 0o600))
	out, err = verifyTenant(t, dir, "a", "table", now.Add(2*time.Hour))
	require.Error(t, err)
	require.Contains(t, out, "a/"+stray.String()+": block "+stray.String()+": ")
}
