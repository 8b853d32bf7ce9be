package salvage

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor/salvage"
	"github.com/duramendb/duramen/internal/cli"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func invoke(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	env := cli.Env{Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }}
	code = cli.Main(t.Context(), Command(), args, env)
	return code, out.String(), errs.String()
}

// newBucket is a filesystem bucket with one listed block of some series.
func newBucket(t *testing.T) (dir string, b *blockgen.Block, owner *manifest.Owner) {
	t.Helper()
	dir = t.TempDir()
	bkt, err := bucket.NewFilesystem(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, bkt.Close()) })
	r := rand.New(rand.NewPCG(5, 6))
	for b == nil || b.Entry.Chunks < 4 || b.Entry.Series < 3 {
		all, err := blockgen.NewRandom(r)
		require.NoError(t, err)
		b = all.Blocks[0]
	}
	require.NoError(t, b.Put(t.Context(), bkt, "team-a"))
	owner = manifest.NewOwner(bkt, time.Now, slog.New(slog.DiscardHandler), nil)
	_, err = owner.Add(t.Context(), "team-a", b.Entry)
	require.NoError(t, err)
	return dir, b, owner
}

func TestSalvage(t *testing.T) {
	dir, b, owner := newBucket(t)
	args := []string{"-bucket=" + dir, "-scratch=" + t.TempDir()}
	code, stdout, stderr := invoke(t, append(args, "team-a")...)
	require.Equal(t, cli.ExitDone, code, stderr)
	require.Equal(t, "0 of 1 blocks are damaged\n", stdout)

	name := filepath.Join(dir, "team-a", b.Entry.ULID.String(), "chunks", "000001")
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	data[13] ^= 1
	require.NoError(t, os.WriteFile(name, data, 0o666))

	code, stdout, _ = invoke(t, append(args, "team-a")...)
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, stdout, "nothing was written")
	require.Contains(t, stdout, "in 1 chunks; of ")
	m, err := owner.Refresh(t.Context(), "team-a")
	require.NoError(t, err)
	require.EqualValues(t, 1, m.Version, "a dry run changes nothing")

	code, stdout, _ = invoke(t, append(args, "-apply", "-format=json", "team-a", b.Entry.ULID.String())...)
	require.Equal(t, cli.ExitWrong, code)
	var report salvage.Report
	require.NoError(t, json.Unmarshal([]byte(stdout), &report))
	require.EqualValues(t, 1, report.Lost.Chunks)
	m, err = owner.Refresh(t.Context(), "team-a")
	require.NoError(t, err)
	require.Len(t, m.Blocks, 1)
	require.Equal(t, report.NewBlock, m.Blocks[0].ULID.String())
	require.NotEmpty(t, m.Lost)

	code, stdout, stderr = invoke(t, append(args, "team-a")...)
	require.Equal(t, cli.ExitDone, code, stderr)
	require.Equal(t, "0 of 1 blocks are damaged\n", stdout)
}

// TestAcceptLoss: what is gone is given up when that is asked for, block by block.
func TestAcceptLoss(t *testing.T) {
	dir, b, owner := newBucket(t)
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "team-a", b.Entry.ULID.String())))
	args := []string{"-bucket=" + dir, "-scratch=" + t.TempDir(), "-apply"}
	code, _, stderr := invoke(t, append(args, "team-a")...)
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, stderr, "-accept-loss")
	m, err := owner.Refresh(t.Context(), "team-a")
	require.NoError(t, err)
	require.Len(t, m.Blocks, 1)

	code, stdout, _ := invoke(t, append(args, "-accept-loss", "team-a", b.Entry.ULID.String())...)
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, stdout, "the block left the manifest")
	m, err = owner.Refresh(t.Context(), "team-a")
	require.NoError(t, err)
	require.Empty(t, m.Blocks)
	require.Len(t, m.Lost, 1, "queries warn")
}

func TestUsage(t *testing.T) {
	dir, _, _ := newBucket(t)
	for _, args := range [][]string{
		{},
		{"a/b"},
		{"team-a", "no-ulid"},
		{"-format=xml", "team-a"},
		{"-keep=-1h", "team-a"},
		{"-max-memory-bytes=0", "team-a"},
		{"-accept-loss", "-apply", "team-a"},
		{"-accept-loss", "team-a", "01KAH2V5X4S3P8Y4QW4Q5B6Z7C"},
	} {
		code, _, stderr := invoke(t, append([]string{"-bucket=" + dir}, args...)...)
		require.Equal(t, cli.ExitUsage, code, "%v: %s", args, stderr)
	}
	code, _, stderr := invoke(t, "-bucket="+dir, "team-b")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stderr, "team-b")
}
