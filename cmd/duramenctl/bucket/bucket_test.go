package bucket

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/block"
	objects "github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/cli"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func invoke(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	env := cli.Env{Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }}
	code = cli.Main(t.Context(), Command(), append([]string{"copy"}, args...), env)
	return code, out.String(), errs.String()
}

// add puts a listed block into a filesystem bucket.
func add(t *testing.T, dir, tenantID string) ulid.ULID {
	t.Helper()
	bkt, err := objects.NewFilesystem(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, bkt.Close()) }()
	id := ulid.MustNew(ulid.Now(), ulid.DefaultEntropy())
	m := &block.Meta{BlockMeta: tsdb.BlockMeta{ULID: id, MaxTime: 1, Version: 1}}
	raw, err := m.Marshal()
	require.NoError(t, err)
	for _, name := range []string{block.SegmentName(1), block.IndexName, block.MetaName} {
		data := raw
		if name != block.MetaName {
			data = []byte(name)
		}
		require.NoError(t, bkt.Put(t.Context(), block.Key(tenantID, id, name), bytes.NewReader(data), int64(len(data))))
	}
	owner := manifest.NewOwner(bkt, time.Now, slog.New(slog.DiscardHandler), nil)
	_, err = owner.Add(t.Context(), tenantID, m.ManifestBlock(int64(len(raw))))
	require.NoError(t, err)
	return id
}

func TestCopy(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "new")
	id := add(t, from, "a")
	add(t, from, "b")
	code, out, errs := invoke(t, "-from="+from, "-to="+to, "-dry-run")
	require.Equal(t, cli.ExitDone, code, errs)
	require.Regexp(t, `^a: would copy version 1 with 1 blocks: 3 objects, \d+ B; 0 objects, 0 B, were there\nb: would`, out)
	require.NoDirExists(t, to)
	code, out, errs = invoke(t, "-from="+from, "-to="+to, "a")
	require.Equal(t, cli.ExitDone, code, errs)
	require.Contains(t, out, "a: copied version 1 with 1 blocks: 3 objects")
	require.Contains(t, errs, "copy a: ")
	require.FileExists(t, filepath.Join(to, "a", id.String(), "meta.json"))
	require.NoDirExists(t, filepath.Join(to, "b"))
	for _, verify := range []string{"sent", "all", "sizes"} {
		code, out, errs = invoke(t, "-from="+from, "-to="+to, "-verify="+verify)
		require.Equal(t, cli.ExitDone, code, errs)
		require.Contains(t, out, "a: copied version 1 with 1 blocks: 0 objects, 0 B; 3 objects")
	}
	require.DirExists(t, filepath.Join(to, "b"))

	// What must not be done is told by its own code, and the other tenants are copied.
	add(t, to, "a")
	add(t, from, "b")
	code, out, errs = invoke(t, "-from="+from, "-to="+to)
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, errs, "copy tenant a: the destination has a history of its own")
	require.Contains(t, out, "b: copied version 2")
	code, _, _ = invoke(t, "-from="+from, "-to="+to, "-replace-diverged")
	require.Equal(t, cli.ExitDone, code)

	incomplete := add(t, from, "c")
	require.NoError(t, os.Remove(filepath.Join(from, "c", incomplete.String(), "meta.json")))
	code, _, errs = invoke(t, "-from="+from, "-to="+to, "c")
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, errs, "block "+incomplete.String()+": the block is not complete in the source")
	code, _, errs = invoke(t, "-from="+from, "-to="+to, "-accept-incomplete", "c")
	require.Equal(t, cli.ExitDone, code, errs)
}

// TestADamagedManifestKeepsNoOtherTenant has tenants before and after those whose manifest cannot be read.
func TestADamagedManifestKeepsNoOtherTenant(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for _, id := range []string{"a", "b", "c", "d"} {
		add(t, from, id)
	}
	for path, text := range map[string]string{from: manifest.Key("b", 1), to: manifest.Key("c", 1)} {
		name := filepath.Join(path, filepath.FromSlash(text))
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o750))
		require.NoError(t, os.WriteFile(name, []byte("broken"), 0o600))
	}
	code, out, errs := invoke(t, "-from="+from, "-to="+to)
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, errs, "copy tenant b: source: the manifest is damaged: "+manifest.Key("b", 1)+": decode manifest: ")
	require.Contains(t, errs, "copy tenant c: destination: the manifest is damaged: "+manifest.Key("c", 1)+": decode manifest: ")
	require.NotContains(t, errs, "run it again")
	require.Regexp(t, `^a: copied version 1 .*\nd: copied version 1 `, out)

	// A bucket that fails is another thing, and what was found before it is told nevertheless.
	add(t, from, "e")
	require.NoError(t, os.WriteFile(filepath.Join(to, "e"), nil, 0o600))
	code, _, errs = invoke(t, "-from="+from, "-to="+to)
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, "copy tenant b: source: the manifest is damaged")
	require.Regexp(t, `copy tenant e: .* \(run it again to go on\)`, errs)
}

func TestNothingToCopy(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	code, out, errs := invoke(t, "-from="+from, "-to="+to)
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, from+" does not look like a bucket: no tenant in it has a manifest (a data directory has its bucket in")
	require.Empty(t, out)

	data := t.TempDir() // the directory above the bucket
	add(t, filepath.Join(data, "bucket"), "a")
	code, _, errs = invoke(t, "-from="+data, "-to="+to, "-dry-run")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, data+" does not look like a bucket")
	code, _, errs = invoke(t, "-from="+data, "-to="+to, "a")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, "tenant a has no manifest in filesystem "+data)

	// One that is misspelt keeps no other from being copied.
	add(t, from, "b")
	code, out, errs = invoke(t, "-from="+from, "-to="+to, "nosuch", "b")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, "tenant nosuch has no manifest in filesystem "+from)
	require.NotContains(t, errs, "run it again")
	require.Contains(t, out, "b: copied version 1")

	add(t, from, "a")
	require.NoError(t, os.RemoveAll(filepath.Join(from, "a", "duramen")))
	for _, named := range [][]string{nil, {"a", "b"}} {
		code, out, errs = invoke(t, append([]string{"-from=" + from, "-to=" + to}, named...)...)
		require.Equal(t, cli.ExitWrong, code)
		require.Contains(t, errs, "tenant a has 1 blocks and no manifest in filesystem "+from)
		require.Contains(t, out, "b: copied version 1")
	}
}

func TestWrongUsage(t *testing.T) {
	dir := t.TempDir()
	for code, lines := range map[int][][]string{
		cli.ExitUsage: {
			{},
			{"-from=" + dir},
			{"-from=" + dir, "-to=" + dir},
			{"-from=" + dir, "-to=" + dir + "/."},
			{"-from=" + dir, "-to=x", "-verify=perhaps"},
			{"-from=" + dir, "-to=x", "-parallel=0"},
			{"-from=" + dir, "-to=gs://x"},
			{"-from=" + dir, "-to=x", "../a"},
			{"-from=" + dir, "-to=s3://x/?endpoint=a&secret_access_key=hunter2"},
		},
		cli.ExitFailed: {{"-from=" + dir + "/missing", "-to=" + t.TempDir()}},
	} {
		for _, args := range lines {
			got, _, errs := invoke(t, args...)
			require.Equal(t, code, got, "%q: %s", args, errs)
			require.NotContains(t, errs, "hunter2")
		}
	}
}

func TestABucketInTheOther(t *testing.T) {
	dir, beside := t.TempDir(), t.TempDir()
	link := filepath.Join(beside, "link")
	require.NoError(t, os.Symlink(dir, link))
	add(t, dir, "a")
	inside := filepath.Join(dir, "backup", "new")
	for _, outer := range []string{dir, dir + "/.", link, "file://" + dir} {
		for _, inner := range []string{inside, filepath.Join(link, "backup", "new"), "file://" + inside} {
			code, _, errs := invoke(t, "-from="+outer, "-to="+inner)
			require.Equal(t, cli.ExitUsage, code, "%s %s", outer, inner)
			require.Contains(t, errs, "-to lies in -from")
			code, _, errs = invoke(t, "-from="+inner, "-to="+outer)
			require.Equal(t, cli.ExitUsage, code, "%s %s", outer, inner)
			require.Contains(t, errs, "-from lies in -to")
		}
		code, _, errs := invoke(t, "-from="+outer, "-to="+link+"/../"+filepath.Base(dir))
		require.Equal(t, cli.ExitUsage, code)
		require.Contains(t, errs, "are one bucket")
	}
	require.NoDirExists(t, inside)
	code, _, errs := invoke(t, "-from="+dir, "-to="+dir+"-copy") // a name that only begins alike
	require.Equal(t, cli.ExitDone, code, errs)
}
