package manifest

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/block"
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

// id returns the n-th ULID.
func id(n byte) ulid.ULID { return ulid.ULID{0, 0, 0, 0, 0, n} }

// made returns a block of two hours, the n-th from 1970 on, made of sources or of nothing but itself.
func made(n byte, sources ...byte) manifest.Block {
	b := manifest.Block{
		ULID: id(n), MinTime: int64(n) * 7_200_000, MaxTime: int64(n+1) * 7_200_000, Level: 1, Series: 10, Samples: 1000, Chunks: 10,
		SizeBytes: 2048, Writer: "ingester-0", AddedAt: 1000, AddedVersion: 1, Sources: []ulid.ULID{id(n)},
	}
	if len(sources) > 0 {
		b.Level, b.Sources = 2, nil
		for _, s := range sources {
			b.Sources = append(b.Sources, id(s))
		}
	}
	return b
}

// put writes a file of the bucket.
func put(t *testing.T, dir, key string, data []byte) {
	t.Helper()
	name := filepath.Join(dir, filepath.FromSlash(key))
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(t, os.WriteFile(name, data, 0o600))
}

func putVersion(t *testing.T, dir string, m *manifest.Manifest) {
	t.Helper()
	m.SwapID = "swap"
	data, err := manifest.Encode(m)
	require.NoError(t, err)
	put(t, dir, manifest.Key(m.Tenant, m.Version), data)
}

func putBlock(t *testing.T, dir string, n byte, names ...string) {
	t.Helper()
	for _, name := range names {
		put(t, dir, block.Key("a", id(n), name), []byte("x"))
	}
}

// story is a bucket in which tenant a merged blocks 1 and 2 into 4 and removed block 3, and tenant b has one block.
func story(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	putVersion(t, dir, &manifest.Manifest{Tenant: "a", Version: 1, Blocks: []manifest.Block{made(1), made(2), made(3)}})
	putVersion(t, dir, &manifest.Manifest{
		Tenant: "a", Version: 3, Blocks: []manifest.Block{made(3), made(4, 1, 2)}, Removed: []manifest.RemovedBlock{{ULID: id(9), RemovedAt: 1}},
	})
	again := made(4, 1, 2)
	again.SizeBytes = 4096
	putVersion(t, dir, &manifest.Manifest{
		Tenant: "a", Version: 4, Blocks: []manifest.Block{again}, Removed: []manifest.RemovedBlock{{ULID: id(3), RemovedAt: 1000}},
	})
	putVersion(t, dir, &manifest.Manifest{Tenant: "b", Version: 1, Blocks: []manifest.Block{made(1)}})
	return dir
}

func TestShow(t *testing.T) {
	dir := story(t)
	code, out, errs := invoke(t, "show", "-bucket="+dir, "a")
	require.Equal(t, cli.ExitDone, code, errs)
	require.Regexp(t, `^tenant a, version 4, written 2\d{3}-.*, \d+ B\nversions in the bucket: 1, 3–4\nBLOCK +FROM `, out)
	require.Regexp(t, id(4).String()+` +1970-01-01 08:00:00 +1970-01-01 10:00:00 +2 +2 +10 +1000 +4.00 KiB +ingester-0 +1970-01-01 00:00:01 +1\n`, out)
	require.Contains(t, out, "removed: "+id(3).String()+" at 1970-01-01 00:00:01\n")
	code, out, _ = invoke(t, "show", "-bucket="+dir, "-version=1", "a")
	require.Equal(t, cli.ExitDone, code)
	require.Contains(t, out, id(1).String())
	require.NotContains(t, out, id(4).String())

	code, out, _ = invoke(t, "show", "-bucket="+dir, "-format=json", "a")
	require.Equal(t, cli.ExitDone, code)
	var s shown
	require.NoError(t, json.Unmarshal([]byte(out), &s))
	require.Equal(t, []uint64{1, 3, 4}, s.Versions)
	require.Equal(t, id(4), s.Manifest.Blocks[0].ULID)
	require.Positive(t, s.Bytes)

	code, out, _ = invoke(t, "show", "-bucket="+dir)
	require.Equal(t, cli.ExitDone, code)
	require.Regexp(t, `(?m)^a +4 +1 +4.00 KiB +1 +readable\nb +1 +1 +2.00 KiB +0 +readable$`, out)
}

func TestShowSaysWhatIsWrong(t *testing.T) {
	dir := story(t)
	newest := filepath.Join(dir, filepath.FromSlash(manifest.Key("a", 4)))
	whole, err := os.ReadFile(newest)
	require.NoError(t, err)
	flipped := bytes.Replace(whole, []byte("4096"), []byte("4097"), 1)
	other, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(manifest.Key("b", 1))))
	require.NoError(t, err)
	for text, data := range map[string][]byte{
		"checksum does not match":      flipped,
		"instead of":                   whole[:len(whole)-7],
		"no valid header":              {},
		"it holds version 1 of tenant": other,
	} {
		require.NoError(t, os.WriteFile(newest, data, 0o600))
		for _, args := range [][]string{{"show", "a"}, {"diff", "a"}, {"diff", "a", "1"}} {
			code, out, errs := invoke(t, append(args, "-bucket="+dir)...)
			require.Equal(t, cli.ExitWrong, code, args)
			require.Contains(t, errs, manifest.Key("a", 4))
			require.Contains(t, errs, text)
			require.Contains(t, errs, "the newest version that can be read is 3, of 2")
			require.Empty(t, out)
		}
		code, _, _ := invoke(t, "show", "-bucket="+dir, "-version=3", "a")
		require.Equal(t, cli.ExitDone, code)
		code, out, errs := invoke(t, "show", "-bucket="+dir)
		require.Equal(t, cli.ExitWrong, code)
		require.Regexp(t, `(?m)^a +4 .* unreadable\nb .* readable$`, out)
		require.Contains(t, errs, text)
	}
	putBlock(t, dir, 1, block.MetaName)
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "a", "duramen")))
	code, out, errs := invoke(t, "show", "-bucket="+dir)
	require.Equal(t, cli.ExitWrong, code)
	require.Regexp(t, `(?m)^a .* no manifest$`, out)
	require.Contains(t, errs, "tenant a has no manifest in ")
}

func TestDiffOfVersions(t *testing.T) {
	dir := story(t)
	code, out, errs := invoke(t, "diff", "-bucket="+dir, "a", "1", "3")
	require.Equal(t, cli.ExitDone, code, errs)
	require.Contains(t, out, "tenant a, from version 1 to 3: 1 blocks entered, 2 left, 0 described anew\n")
	require.Contains(t, out, "+ "+id(4).String()+" 1970-01-01 08:00:00 to 1970-01-01 10:00:00, level 2, 10 series, 1000 samples, 2.00 KiB, ingester-0\n")
	require.Regexp(t, `(?m)^- `+id(1).String()+` .*; its samples are in `+id(4).String()+`$`, out)
	require.NotContains(t, out, id(3).String())
	require.Contains(t, out, "remembered as removed: "+id(9).String()+"\n")

	code, out, _ = invoke(t, "diff", "-bucket="+dir, "a", "3")
	require.Equal(t, cli.ExitDone, code)
	require.Regexp(t, `(?m)^- `+id(3).String()+` .*; its samples are gone$`, out)
	require.Contains(t, out, "~ "+id(4).String()+": size_bytes 2048 → 4096\n")
	require.Contains(t, out, "remembered as removed: "+id(3).String()+"\nnot remembered any more: "+id(9).String()+"\n")

	code, out, _ = invoke(t, "diff", "-bucket="+dir, "-format=json", "a", "4", "1")
	require.Equal(t, cli.ExitDone, code)
	var c change
	require.NoError(t, json.Unmarshal([]byte(out), &c))
	require.Len(t, c.Entered, 3)
	require.Equal(t, id(4), c.Left[0].ULID)
	require.Nil(t, c.Left[0].CoveredBy, "version 1 has its sources in two blocks")
}

func TestDiffWithTheBucket(t *testing.T) {
	dir := story(t)
	putBlock(t, dir, 4, block.MetaName, block.IndexName, block.SegmentName(1))
	code, out, errs := invoke(t, "diff", "-bucket="+dir, "a")
	require.Equal(t, cli.ExitDone, code, errs)
	require.Equal(t, "tenant a, version 4: 1 blocks listed, 0 lack objects, 0 in the bucket are not listed\n", out)

	require.NoError(t, os.Remove(filepath.Join(dir, "a", id(4).String(), "index")))
	putBlock(t, dir, 1, block.MetaName)
	putBlock(t, dir, 3, block.MetaName)
	putBlock(t, dir, 7, block.MetaName)
	putBlock(t, dir, 8, block.IndexName)
	code, out, errs = invoke(t, "diff", "-bucket="+dir, "a")
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, errs, "block "+id(4).String()+" is listed and lacks index")
	require.Contains(t, out, "- "+id(4).String()+" lacks index\n")
	require.Contains(t, out, "+ "+id(1).String()+" 1 objects, 1 B; its samples are in a listed block\n")
	require.Contains(t, out, "+ "+id(3).String()+" 1 objects, 1 B; removed before\n")
	require.Contains(t, out, "+ "+id(7).String()+" 1 objects, 1 B; not known to the manifest\n")
	require.Contains(t, out, "+ "+id(8).String()+" 1 objects, 1 B; not known to the manifest, no meta.json: being uploaded, or left over\n")
	code, out, _ = invoke(t, "diff", "-bucket="+dir, "-format=json", "a")
	require.Equal(t, cli.ExitWrong, code)
	var d bucketDiff
	require.NoError(t, json.Unmarshal([]byte(out), &d))
	require.Len(t, d.Unlisted, 4)
	require.Equal(t, []string{"index"}, d.Lacking[0].Objects)
}

func TestWrongUsageAndMissingThings(t *testing.T) {
	dir := story(t)
	for code, lines := range map[int][][]string{
		cli.ExitUsage: {
			{}, {"show"},
			{"show", "-bucket=" + dir, "a", "b"},
			{"show", "-bucket=" + dir, "-version=1"},
			{"show", "-bucket=" + dir, "-format=x", "a"},
			{"show", "-bucket=" + dir, "../a"},
			{"diff", "-bucket=" + dir},
			{"diff", "-bucket=" + dir, "a", "x"},
			{"diff", "-bucket=" + dir, "a", "0"},
			{"diff", "-bucket=" + dir, "a", "1", "2", "3"},
		},
		cli.ExitFailed: {
			{"show", "-bucket=" + dir, "c"},
			{"show", "-bucket=" + dir, "-version=2", "a"},
			{"show", "-bucket=" + t.TempDir()},
			{"show", "-bucket=" + dir + "/missing"},
			{"diff", "-bucket=" + dir, "a", "2"},
			{"diff", "-bucket=" + dir, "c"},
		},
	} {
		for _, args := range lines {
			got, _, errs := invoke(t, args...)
			require.Equal(t, code, got, "%q: %s", args, errs)
		}
	}
}
