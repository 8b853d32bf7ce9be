package manifest

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
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
	again.SizeBytes, again.SidecarBytes, again.DirectoryBytes, again.Labels = 4096, 1024, 100, map[string]string{"replica": "x"}
	putVersion(t, dir, &manifest.Manifest{
		Tenant: "a", Version: 4, Blocks: []manifest.Block{again}, Removed: []manifest.RemovedBlock{{ULID: id(3), RemovedAt: 1000}},
		Lost: []manifest.LostRange{{MinTime: 0, MaxTime: 3_600_000, Reason: "segment 7 of block x was damaged"}},
	})
	putVersion(t, dir, &manifest.Manifest{Tenant: "b", Version: 1, Blocks: []manifest.Block{made(1)}})
	return dir
}

func TestShow(t *testing.T) {
	dir := story(t)
	code, out, errs := invoke(t, "show", "-bucket="+dir, "a")
	require.Equal(t, cli.ExitDone, code, errs)
	require.Regexp(t, `^tenant a, version 4, written 2\d{3}-.*, \d+ B\nversions in the bucket: 1, 3–4\nBLOCK +FROM `, out)
	require.Regexp(t, id(4).String()+` +1970-01-01 08:00:00 +1970-01-01 10:00:00 +2 +2 +10 +1000 +4.00 KiB +1.00 KiB +ingester-0 +1970-01-01 00:00:01 +1 +{replica="x"}\n`, out)
	require.Contains(t, out, "removed: "+id(3).String()+" at 1970-01-01 00:00:01\n")
	require.Contains(t, out, "lost: samples from 1970-01-01 00:00:00 to 1970-01-01 01:00:00: segment 7 of block x was damaged\n")
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
	require.Regexp(t, `(?m)^a +4 +1 +4.00 KiB +1 +1 +readable\nb +1 +1 +2.00 KiB +0 +0 +readable$`, out)
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

	// From a newer version to an older one nothing has gone.
	code, out, _ = invoke(t, "diff", "-bucket="+dir, "a", "3", "1")
	require.Equal(t, cli.ExitDone, code)
	require.Regexp(t, `(?m)^- `+id(4).String()+` .*; it entered after version 1$`, out)
	require.NotContains(t, out, "are gone")

	code, out, _ = invoke(t, "diff", "-bucket="+dir, "a", "3")
	require.Equal(t, cli.ExitDone, code)
	require.Regexp(t, `(?m)^- `+id(3).String()+` .*; its samples are gone$`, out)
	require.Contains(t, out, "~ "+id(4).String()+`: directory_bytes – → 100, labels – → {"replica":"x"}, sidecar_bytes – → 1024, size_bytes 2048 → 4096`+"\n")
	require.Contains(t, out, "lost: samples from 1970-01-01 00:00:00 to 1970-01-01 01:00:00: ")
	require.Contains(t, out, "remembered as removed: "+id(3).String()+"\nnot remembered any more: "+id(9).String()+"\n")

	code, out, _ = invoke(t, "diff", "-bucket="+dir, "-format=json", "a", "4", "1")
	require.Equal(t, cli.ExitDone, code)
	var c change
	require.NoError(t, json.Unmarshal([]byte(out), &c))
	require.Len(t, c.Entered, 3)
	require.Equal(t, id(4), c.Left[0].ULID)
	require.Equal(t, []ulid.ULID{id(1), id(2)}, c.Left[0].CoveredBy)
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
			{},
			{"show"},
			{"show", "-bucket=" + dir, "a", "b"},
			{"show", "-bucket=" + dir, "-version=1"},
			{"show", "-bucket=" + dir, "-format=x", "a"},
			{"show", "-bucket=" + dir, "../a"},
			{"diff", "-bucket=" + dir},
			{"diff", "-bucket=" + dir, "a", "x"},
			{"diff", "-bucket=" + dir, "a", "0"},
			{"diff", "-bucket=" + dir, "a", "1", "2", "3"},
			{"rebuild", "-bucket=" + dir},
			{"rebuild", "-bucket=" + dir, "a", "b"},
		},
		cli.ExitFailed: {
			{"show", "-bucket=" + dir, "c"},
			{"show", "-bucket=" + dir, "-version=2", "a"},
			{"show", "-bucket=" + t.TempDir()},
			{"show", "-bucket=" + dir + "/missing"},
			{"diff", "-bucket=" + dir, "a", "2"},
			{"diff", "-bucket=" + dir, "c"},
			{"rebuild", "-bucket=" + dir, "c"},
		},
	} {
		for _, args := range lines {
			got, _, errs := invoke(t, args...)
			require.Equal(t, code, got, "%q: %s", args, errs)
		}
	}
}

// bucketOfBlocks is a filesystem bucket with n real blocks of tenant a, each with a version of its own.
func bucketOfBlocks(t *testing.T, n int) (dir string, ids []ulid.ULID) {
	t.Helper()
	dir = t.TempDir()
	bkt, err := bucket.NewFilesystem(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, bkt.Close()) }()
	owner := manifest.NewOwner(bkt, time.Now, slog.New(slog.DiscardHandler), nil)
	for i := range n {
		local := t.TempDir()
		w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), local, 1<<40)
		require.NoError(t, err)
		app := w.AppenderV2(t.Context())
		_, err = app.Append(0, labels.FromStrings(labels.MetricName, "m"), 0, int64(i)*7_200_000, 1, nil, nil, storage.AOptions{})
		require.NoError(t, err)
		require.NoError(t, app.Commit())
		id, err := w.Flush(t.Context())
		require.NoError(t, err)
		require.NoError(t, w.Close())
		b, err := block.Upload(t.Context(), bkt, "a", filepath.Join(local, id.String()), "ingester-0")
		require.NoError(t, err)
		_, err = owner.Add(t.Context(), "a", b)
		require.NoError(t, err)
		ids = append(ids, id)
	}
	return dir, ids
}

func TestRebuild(t *testing.T) {
	dir, ids := bucketOfBlocks(t, 3)
	code, _, errs := invoke(t, "rebuild", "-bucket="+dir, "a")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, "can be read: there is nothing to rebuild")

	newest := filepath.Join(dir, filepath.FromSlash(manifest.Key("a", 3)))
	require.NoError(t, os.WriteFile(newest, []byte("damaged"), 0o600))
	code, out, errs := invoke(t, "rebuild", "-bucket="+dir, "a")
	require.Equal(t, cli.ExitDone, code, errs)
	require.Contains(t, out, "version 3 of the manifest cannot be read; compared with version 2, which can:\n+ "+ids[2].String()+" ")
	require.Contains(t, out, "nothing was written: with -accept-lost-tombstones, version 4 with 3 blocks would be\n")
	code, _, _ = invoke(t, "show", "-bucket="+dir, "a")
	require.Equal(t, cli.ExitWrong, code, "a dry run writes nothing")

	require.NoError(t, os.Remove(filepath.Join(dir, "a", ids[2].String(), "index")))
	code, out, errs = invoke(t, "rebuild", "-bucket="+dir, "-accept-lost-tombstones", "-format=json", "a")
	require.Equal(t, cli.ExitDone, code, errs)
	var r rebuilt
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.EqualValues(t, 4, r.Written)
	require.Len(t, r.Manifest.Blocks, 2)
	require.Equal(t, ids[2], r.Left[0].ULID)
	code, out, _ = invoke(t, "show", "-bucket="+dir, "a")
	require.Equal(t, cli.ExitDone, code)
	require.Contains(t, out, "tenant a, version 4, ")

	require.NoError(t, os.RemoveAll(filepath.Join(dir, "a", ids[0].String())))
	code, out, errs = invoke(t, "rebuild", "-bucket="+dir, "-accept-lost-tombstones", "-force", "a")
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, out, "lost: "+ids[0].String()+": version 4 lists it and it is not in the bucket\n")
	require.Contains(t, out, "written: version 5 with 1 blocks\n")
	require.Contains(t, errs, "block "+ids[0].String())

	require.NoError(t, os.RemoveAll(filepath.Join(dir, "a", "duramen")))
	code, out, errs = invoke(t, "rebuild", "-bucket="+dir, "a")
	require.Equal(t, cli.ExitDone, code, errs)
	require.Contains(t, out, "tenant a has no version of a manifest\n+ "+ids[1].String())
}
