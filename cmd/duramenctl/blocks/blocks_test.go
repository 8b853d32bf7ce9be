package blocks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
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

// newBucket is a filesystem bucket with n listed blocks for each tenant and returns their IDs.
func newBucket(t *testing.T, n int, tenants ...string) (dir string, ids map[string][]ulid.ULID) {
	t.Helper()
	dir, ids = t.TempDir(), map[string][]ulid.ULID{}
	bkt, err := bucket.NewFilesystem(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, bkt.Close()) }()
	owner := manifest.NewOwner(bkt, time.Now, slog.New(slog.DiscardHandler), nil)
	for _, tenant := range tenants {
		for i := range n {
			b := addBlock(t, bkt, tenant, i)
			_, err := owner.Add(t.Context(), tenant, b)
			require.NoError(t, err)
			ids[tenant] = append(ids[tenant], b.ULID)
		}
	}
	return dir, ids
}

// addBlock uploads a block that no manifest lists.
func addBlock(t *testing.T, bkt bucket.Bucket, tenant string, n int) manifest.Block {
	t.Helper()
	local := t.TempDir()
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), local, 1<<40)
	require.NoError(t, err)
	defer func() { require.NoError(t, w.Close()) }()
	app := w.AppenderV2(t.Context())
	for i := range 3 {
		lset := labels.FromStrings(labels.MetricName, "m", "i", fmt.Sprint(i))
		for s := range 10 {
			at := int64(n)*7_200_000 + int64(s)*15_000
			_, err := app.Append(0, lset, 0, at, float64(s), nil, nil, storage.AOptions{})
			require.NoError(t, err)
		}
	}
	require.NoError(t, app.Commit())
	id, err := w.Flush(t.Context())
	require.NoError(t, err)
	b, err := block.Upload(t.Context(), bkt, tenant, filepath.Join(local, id.String()), "ingester-0")
	require.NoError(t, err)
	return b
}

// change alters one byte of an object.
func change(t *testing.T, dir, tenant string, id ulid.ULID, name string, at int) {
	t.Helper()
	path := filepath.Join(dir, tenant, id.String(), filepath.FromSlash(name))
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	data[(at+len(data))%len(data)] ^= 1
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

func TestListAndCheckASoundBucket(t *testing.T) {
	dir, ids := newBucket(t, 2, "a", "b")
	code, out, errs := invoke(t, "list", "-bucket="+dir)
	require.Equal(t, cli.ExitDone, code, errs)
	require.Regexp(t, `TENANT +BLOCK +FROM +TO +SERIES +SAMPLES +SIZE +LEVEL +SOURCES +WRITER +STATE`, out)
	require.Regexp(t, `a +`+ids["a"][1].String()+` +1970-01-01 02:00:00 +1970-01-01 02:02:15 +3 +30 +\S+ KiB +1 +0 +ingester-0 +listed`, out)
	require.Equal(t, 5, strings.Count(out, "\n"))
	_, out, _ = invoke(t, "list", "-bucket="+dir, "b")
	require.NotContains(t, out, ids["a"][0].String())

	code, out, errs = invoke(t, "check", "-bucket="+dir)
	require.Equal(t, cli.ExitDone, code, out)
	require.Contains(t, out, "b/"+ids["b"][0].String()+": sound, 3 series, 30 samples, ")
	require.Contains(t, out, "4 blocks of 2 tenants, ")
	require.Contains(t, out, ": 0 faults in 0 blocks\n")
	require.Contains(t, errs, "check: ")
	require.Contains(t, errs, "(100%)")
	code, out, _ = invoke(t, "check", "-bucket="+dir, "a", ids["a"][0].String())
	require.Equal(t, cli.ExitDone, code)
	require.Contains(t, out, "1 blocks of 1 tenants")
	code, out, _ = invoke(t, "check", "-shallow", "-bucket="+dir)
	require.Equal(t, cli.ExitDone, code)
	require.Contains(t, out, "sound, ")
	require.Contains(t, out, "not read")
}

// TestCheckAndSidecars: one that is missing is said, one that is wrong is a fault.
func TestCheckAndSidecars(t *testing.T) {
	dir, ids := newBucket(t, 3, "a")
	require.NoError(t, os.Remove(filepath.Join(dir, "a", ids["a"][0].String(), block.SidecarName)))
	code, out, errs := invoke(t, "check", "-bucket="+dir)
	require.Equal(t, cli.ExitDone, code, errs)
	require.Contains(t, out, ids["a"][0].String()+": sound, no sidecar yet, 3 series")
	require.Contains(t, out, ids["a"][1].String()+": sound, 3 series")

	change(t, dir, "a", ids["a"][1], block.SidecarName, 12)
	name := filepath.Join(dir, "a", ids["a"][2].String(), block.SidecarName)
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, append(data, 0), 0o600))
	code, out, _ = invoke(t, "check", "-shallow", "-bucket="+dir)
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, out, fmt.Sprintf("%s/duramen.idx: its size is %d bytes here and %d in the manifest", ids["a"][2], len(data)+1, len(data)))
	code, out, _ = invoke(t, "check", "-bucket="+dir)
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, out, ids["a"][1].String()+"/duramen.idx at byte 8: page 0: sidecar is damaged")
}

func TestCheckNamesFaults(t *testing.T) {
	dir, ids := newBucket(t, 3, "a")
	change(t, dir, "a", ids["a"][0], block.SegmentName(1), 20)
	change(t, dir, "a", ids["a"][2], block.IndexName, -60)
	code, out, errs := invoke(t, "check", "-bucket="+dir)
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, out, "a/"+ids["a"][0].String()+`/chunks/000001 at byte 8, series {__name__="m", i="0"}: checksum of the chunk differs`+"\n")
	require.Contains(t, out, "a/"+ids["a"][0].String()+": 1 faults, 3 series, ")
	require.Contains(t, out, "a/"+ids["a"][1].String()+": sound")
	require.Contains(t, out, "a/"+ids["a"][2].String()+"/index at byte ")
	require.Contains(t, errs, "2 of 3 blocks have faults")

	code, out, _ = invoke(t, "check", "-bucket="+dir, "-format=json", "-show=0")
	require.Equal(t, cli.ExitWrong, code)
	d := json.NewDecoder(strings.NewReader(out))
	for range 3 {
		var r report
		require.NoError(t, d.Decode(&r))
		require.Empty(t, r.Faults)
		require.Equal(t, r.Block != ids["a"][1], r.Count > 0)
	}
	code, _, _ = invoke(t, "check", "-shallow", "-bucket="+dir)
	require.Equal(t, cli.ExitDone, code, "sizes are right")
	code, _, _ = invoke(t, "check", "-bucket="+dir, "a", ids["a"][1].String())
	require.Equal(t, cli.ExitDone, code)
}

func TestManifestAndObjectsAreCompared(t *testing.T) {
	dir, ids := newBucket(t, 2, "a")
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "a", ids["a"][0].String())))
	require.NoError(t, os.Remove(filepath.Join(dir, "a", ids["a"][1].String(), "index")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a", "notes.txt"), []byte("x"), 0o600))
	bkt, err := bucket.NewFilesystem(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, bkt.Close()) }()
	unlisted := addBlock(t, bkt, "a", 5).ULID

	code, out, errs := invoke(t, "list", "-bucket="+dir)
	require.Equal(t, cli.ExitWrong, code)
	require.Equal(t, 2, strings.Count(out, "incomplete"), out)
	require.Regexp(t, unlisted.String()+` .* unlisted`, out)
	require.Contains(t, out, "object of no block: a/notes.txt, 1 B")
	require.Contains(t, errs, "block "+ids["a"][0].String()+" is listed and lacks objects")

	for _, args := range [][]string{{"check", "-bucket=" + dir}, {"check", "-shallow", "-bucket=" + dir}} {
		code, out, _ = invoke(t, args...)
		require.Equal(t, cli.ExitWrong, code)
		require.Contains(t, out, "a/"+ids["a"][0].String()+"/block: it has no objects in the bucket")
		require.Contains(t, out, "a/"+ids["a"][1].String()+"/index: it is missing; meta.json names it")
		require.Regexp(t, `a/`+unlisted.String()+`: in no manifest, not checked, \S+ (Ki)?B\n`, out)
		require.Contains(t, out, "faults in 2 blocks; 1 blocks in no manifest were not checked\n")
	}
	_, out, _ = invoke(t, "check", "-shallow", "-bucket="+dir, "a", ids["a"][1].String())
	require.NotContains(t, out, unlisted.String(), "the wanted blocks are named")
	_, out, _ = invoke(t, "check", "-shallow", "-format=json", "-bucket="+dir)
	require.Regexp(t, `"block":"`+unlisted.String()+`","listed":false,"not_checked":true,"faults":\[\],`, out)
	_, out, _ = invoke(t, "check", "-unlisted", "-bucket="+dir)
	require.Contains(t, out, unlisted.String()+": sound, in no manifest, 3 series")
	require.NotContains(t, out, "not checked")

	require.NoError(t, bkt.PutIfAbsent(t.Context(), manifest.Key("a", 3), []byte("broken")))
	for _, name := range []string{"list", "check"} {
		code, _, errs = invoke(t, name, "-bucket="+dir)
		require.Equal(t, cli.ExitWrong, code)
		require.Contains(t, errs, "decode manifest")
	}
}

func TestCheckWantsSomethingToCheck(t *testing.T) {
	empty, data := t.TempDir(), t.TempDir()
	dir, ids := newBucket(t, 1, "a", "b")
	require.NoError(t, os.Rename(dir, filepath.Join(data, "bucket"))) // data is the directory above a bucket
	for _, args := range [][]string{{}, {"-shallow"}, {"-unlisted"}, {"-format=json"}} {
		for _, wrong := range []string{empty, data} {
			code, out, errs := invoke(t, append([]string{"check", "-bucket=" + wrong}, args...)...)
			require.Equal(t, cli.ExitFailed, code)
			require.Contains(t, errs, wrong+" does not look like a bucket: no tenant in it has a manifest")
			require.Empty(t, out)
		}
	}
	code, _, errs := invoke(t, "check", "-bucket="+data, "bucket")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, "tenant bucket has neither a manifest nor blocks in filesystem "+data)

	dir = filepath.Join(data, "bucket")
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "a", "duramen")))
	code, out, errs := invoke(t, "check", "-bucket="+dir)
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, errs, "tenant a has 1 blocks in the bucket and no manifest")
	require.Contains(t, out, "b/"+ids["b"][0].String()+": sound")
	code, _, errs = invoke(t, "check", "-bucket="+dir, "b")
	require.Equal(t, cli.ExitDone, code, errs)
}

func TestWrongUsageAndMissingThings(t *testing.T) {
	dir, _ := newBucket(t, 1, "a")
	for code, lines := range map[int][][]string{
		cli.ExitUsage: {
			{},
			{"list"},
			{"list", "-bucket=" + dir, "a", "b"},
			{"list", "-bucket=" + dir, "-format=x"},
			{"list", "-bucket=" + dir, "../a"},
			{"check", "-bucket=" + dir, "a", "xyz"},
			{"check", "-bucket=" + dir, "-format=csv"},
		},
		cli.ExitFailed: {
			{"list", "-bucket=" + dir, "b"}, {"check", "-bucket=" + dir, "b"}, {"check", "-bucket=" + dir + "/missing"},
		},
	} {
		for _, args := range lines {
			got, _, errs := invoke(t, args...)
			require.Equal(t, code, got, "%q: %s", args, errs)
		}
	}
}
