package backfill

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/cli"
	"github.com/duramendb/duramen/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// invoke runs the command as main does.
func invoke(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e strings.Builder
	code = cli.Main(t.Context(), Command(), args, cli.Env{Stdout: &o, Stderr: &e, Getenv: func(string) string { return "" }})
	return code, o.String(), e.String()
}

// world is a folder of local blocks and a bucket.
type world struct {
	t          *testing.T
	local, dir string
	bucketFlag string
	bkt        *bucket.Filesystem
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, local: t.TempDir(), dir: t.TempDir()}
	w.bucketFlag = "-bucket=" + w.dir
	var err error
	w.bkt, err = bucket.NewFilesystem(w.dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.bkt.Close()) })
	return w
}

// manifest reads what the tenant has now.
func (w *world) manifest() *manifest.Manifest {
	w.t.Helper()
	m, err := manifest.NewOwner(w.bkt, time.Now, slog.New(slog.DiscardHandler), nil).Current(w.t.Context(), "team-a")
	require.NoError(w.t, err)
	return m
}

// add writes a block of three series that begins at a time and returns its folder.
func (w *world) add(from time.Time, step time.Duration) (string, ulid.ULID) {
	w.t.Helper()
	writer, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), w.local, 1<<40)
	require.NoError(w.t, err)
	app := writer.AppenderV2(w.t.Context())
	for i := range 3 {
		lset := labels.FromStrings(labels.MetricName, "m", "i", fmt.Sprint(i))
		for n := range 10 {
			at := from.Add(time.Duration(n) * step).UnixMilli()
			_, err := app.Append(0, lset, 0, at, float64(n), nil, nil, storage.AOptions{})
			require.NoError(w.t, err)
		}
	}
	require.NoError(w.t, app.Commit())
	id, err := writer.Flush(w.t.Context())
	require.NoError(w.t, err)
	require.NoError(w.t, writer.Close())
	return filepath.Join(w.local, id.String()), id
}

var longAgo = time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC)

func TestUploadOfAFolderAndAgain(t *testing.T) {
	w := newWorld(t)
	_, second := w.add(longAgo.Add(2*time.Hour), time.Minute)
	_, first := w.add(longAgo, time.Minute)
	require.NoError(t, os.Mkdir(filepath.Join(w.local, "wal"), 0o755))

	code, out, errs := invoke(t, w.bucketFlag, "-tenant=team-a", "-dry-run", w.local)
	require.Equal(t, cli.ExitDone, code, errs)
	require.Contains(t, out, "2 blocks would be sent")
	require.Empty(t, w.manifest().Blocks)

	code, out, errs = invoke(t, w.bucketFlag, "-tenant=team-a", "-external-label=cluster=eu", "-external-label=n=1", w.local)
	require.Equal(t, cli.ExitDone, code, errs)
	require.Less(t, strings.Index(out, first.String()), strings.Index(out, second.String()), "by time")
	require.Contains(t, out, first.String()+": 2025-03-01 00:00:00 to 2025-03-01 00:09:00, 3 series, 30 samples, ")
	require.Contains(t, out, "version 2 of the manifest lists all 2")
	require.Contains(t, errs, "its newest hours are in its log")
	m := w.manifest()
	require.Len(t, m.Blocks, 2)
	require.Equal(t, writer, m.Blocks[0].Writer)
	require.Positive(t, m.Blocks[0].SidecarBytes)
	meta, err := block.FetchMeta(t.Context(), w.bkt, "team-a", first)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"cluster": "eu", "n": "1"}, meta.Thanos.Labels)

	_, third := w.add(longAgo.Add(4*time.Hour), time.Minute)
	code, out, errs = invoke(t, w.bucketFlag, "-tenant=team-a", "-external-label=cluster=eu", "-external-label=n=1", w.local,
		filepath.Join(w.local, third.String()))
	require.Equal(t, cli.ExitDone, code, errs)
	require.Equal(t, 2, strings.Count(out, ": is there already\n"))
	require.Contains(t, out, "1 blocks sent")
	require.Len(t, w.manifest().Blocks, 3)

	code, _, errs = invoke(t, w.bucketFlag, "-tenant=team-a", w.local)
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, errs, "it is there with external labels map[cluster:eu n:1]")
}

// TestBlocksThatAreNotSent are named, and the others are sent.
func TestBlocksThatAreNotSent(t *testing.T) {
	for name, tt := range map[string]struct {
		harm func(t *testing.T, dir string)
		want string
	}{
		"a damaged chunk": {func(t *testing.T, dir string) {
			name := filepath.Join(dir, "chunks", "000001")
			data, err := os.ReadFile(name)
			require.NoError(t, err)
			data[20] ^= 1
			require.NoError(t, os.WriteFile(name, data, 0o600))
		}, "faults and is not sent"},
		"no meta.json": {func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(filepath.Join(dir, block.MetaName)))
		}, "block has no meta.json"},
		"deleted samples": {func(t *testing.T, dir string) {
			b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), dir, nil, nil)
			require.NoError(t, err)
			require.NoError(t, b.Delete(t.Context(), 0, 1<<60, labels.MustNewMatcher(labels.MatchEqual, "i", "1")))
			require.NoError(t, b.Close())
		}, "clean_tombstones"},
		"deleted samples that meta.json does not count": {func(t *testing.T, dir string) {
			stones := tombstones.NewMemTombstones()
			stones.AddInterval(1, tombstones.Interval{Mint: 0, Maxt: 1 << 60})
			_, err := tombstones.WriteFile(slog.New(slog.DiscardHandler), dir, stones)
			require.NoError(t, err)
		}, "clean_tombstones"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			bad, badID := w.add(longAgo, time.Minute)
			_, good := w.add(longAgo.Add(2*time.Hour), time.Minute)
			tt.harm(t, bad)
			code, out, errs := invoke(t, w.bucketFlag, "-tenant=team-a", w.local)
			require.Equal(t, cli.ExitWrong, code, out)
			require.Contains(t, errs, tt.want)
			require.Contains(t, errs, badID.String())
			require.Contains(t, out, "1 not sent")
			require.Len(t, w.manifest().Blocks, 1)
			require.Equal(t, good, w.manifest().Blocks[0].ULID)
			_, err := os.Stat(filepath.Join(w.dir, "team-a", badID.String()))
			require.ErrorIs(t, err, os.ErrNotExist)
		})
	}
}

// TestBlocksThatWereReplaced: a Prometheus keeps the parents of a block for some minutes.
func TestBlocksThatWereReplaced(t *testing.T) {
	w := newWorld(t)
	_, parent := w.add(longAgo, time.Minute)
	dir, child := w.add(longAgo, time.Minute)
	meta, err := block.ReadMeta(dir)
	require.NoError(t, err)
	meta.Compaction.Sources = append(meta.Compaction.Sources, parent)
	meta.Compaction.Parents = []tsdb.BlockDesc{{ULID: parent}}
	data, err := meta.Marshal()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, block.MetaName), data, 0o600))

	code, _, errs := invoke(t, w.bucketFlag, "-tenant=team-a", w.local)
	require.Equal(t, cli.ExitDone, code, errs)
	require.Contains(t, errs, parent.String()+" is left out")
	require.Len(t, w.manifest().Blocks, 1)
	require.Equal(t, child, w.manifest().Blocks[0].ULID)

	code, out, errs := invoke(t, w.bucketFlag, "-tenant=team-a", filepath.Join(w.local, parent.String()))
	require.Equal(t, cli.ExitDone, code, errs)
	require.Contains(t, out, "its samples are there in a block that was made of it")
	require.Contains(t, out, "1 are covered by others")
	require.Len(t, w.manifest().Blocks, 1)
}

func TestALongBlockIsTaken(t *testing.T) {
	w := newWorld(t)
	_, id := w.add(longAgo, 10*24*time.Hour)
	code, _, errs := invoke(t, w.bucketFlag, "-tenant=team-a", w.local)
	require.Equal(t, cli.ExitDone, code, errs)
	require.Contains(t, errs, "block "+id.String()+" covers 2160h0m0s")
}

// TestARemovedBlockStaysAway: what was deleted does not come back by accident.
func TestARemovedBlockStaysAway(t *testing.T) {
	w := newWorld(t)
	_, id := w.add(longAgo, time.Minute)
	data, err := manifest.Encode(&manifest.Manifest{
		Tenant: "team-a", Version: 1, SwapID: "x", Removed: []manifest.RemovedBlock{{ULID: id, RemovedAt: longAgo.UnixMilli()}},
	})
	require.NoError(t, err)
	require.NoError(t, w.bkt.PutIfAbsent(t.Context(), manifest.Key("team-a", 1), data))
	code, _, errs := invoke(t, w.bucketFlag, "-tenant=team-a", w.local)
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, errs, id.String()+": it was removed from the tenant on 2025-03-01 00:00:00")
	require.Empty(t, w.manifest().Blocks)
}

// TestAMergedBlockIsThere: a compactor that runs meanwhile does not make a repeated upload fail.
func TestAMergedBlockIsThere(t *testing.T) {
	w := newWorld(t)
	_, id := w.add(longAgo, time.Minute)
	data, err := manifest.Encode(&manifest.Manifest{
		Tenant: "team-a", Version: 1, SwapID: "x",
		Blocks: []manifest.Block{{
			ULID: ulid.MustNew(ulid.Now(), nil), MinTime: longAgo.UnixMilli(), MaxTime: longAgo.Add(time.Hour).UnixMilli(),
			Level: 2, Sources: []ulid.ULID{id}, AddedVersion: 1,
		}},
		Removed: []manifest.RemovedBlock{{ULID: id, RemovedAt: longAgo.UnixMilli()}},
	})
	require.NoError(t, err)
	require.NoError(t, w.bkt.PutIfAbsent(t.Context(), manifest.Key("team-a", 1), data))
	code, out, errs := invoke(t, w.bucketFlag, "-tenant=team-a", w.local)
	require.Equal(t, cli.ExitDone, code, errs)
	require.Contains(t, out, "its samples are there in a block that was made of it")
	require.Contains(t, out, "1 are covered by others")
}

func TestUsage(t *testing.T) {
	w := newWorld(t)
	for _, args := range [][]string{
		{},
		{"-tenant=..", w.local},
		{w.local},
		{"-external-label=x", w.local},
		{"-external-label==x", w.local},
		{"-external-label=__name__=x", w.local},
		{"-external-label=a=1", "-external-label=a=2", w.local},
		{"-url=localhost", w.local},
		{"-wait=0s", w.local},
	} {
		code, _, errs := invoke(t, append([]string{w.bucketFlag}, args...)...)
		require.Equal(t, cli.ExitUsage, code, "%v: %s", args, errs)
	}
	code, _, errs := invoke(t, w.bucketFlag, filepath.Join(w.local, "missing"))
	require.Equal(t, cli.ExitFailed, code, errs)
	w.add(longAgo, time.Minute)
	code, _, _ = invoke(t, w.local)
	require.Equal(t, cli.ExitUsage, code, "no bucket")
}

// server answers queries as told and keeps the last one.
type server struct {
	*httptest.Server
	form   url.Values
	tenant string
	asked  int
}

func newServer(t *testing.T, answer func(n int) (int, string)) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		s.form, s.tenant = r.PostForm, r.Header.Get(tenant.HeaderName)
		s.asked++
		status, body := answer(s.asked)
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	return s
}

const (
	empty = `{"status":"success","data":{"resultType":"matrix","result":[]}}`
	full  = `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"2"]]}]}}`
)

// TestQueryableIsSaidWhenItIs: after errors and answers without the sample.
func TestQueryableIsSaidWhenItIs(t *testing.T) {
	w := newWorld(t)
	w.add(longAgo, time.Minute)
	s := newServer(t, func(n int) (int, string) {
		return []int{503, 200, 200}[n-1], []string{"later", empty, full}[n-1]
	})
	code, out, errs := invoke(t, w.bucketFlag, "-tenant=team-a", "-external-label=i=external", "-external-label=x y=z", "-url="+s.URL+"/", w.local)
	require.Equal(t, cli.ExitDone, code, errs)
	require.Contains(t, out, "queryable now: "+s.URL+" answered for each of 1 blocks")
	require.Equal(t, 3, s.asked)
	require.Equal(t, "team-a", s.tenant)
	require.Equal(t, "1740787200.000", s.form.Get("time"))
	require.Equal(t, `{"__name__"="m","x y"="z"}[1ms]`, s.form.Get("query"))
	_, err := parser.NewParser(parser.Options{}).ParseExpr(s.form.Get("query"))
	require.NoError(t, err)
}

func TestNotQueryableInTime(t *testing.T) {
	w := newWorld(t)
	_, id := w.add(longAgo, time.Minute)
	s := newServer(t, func(int) (int, string) { return 200, empty })
	code, _, errs := invoke(t, w.bucketFlag, "-tenant=team-a", "-url="+s.URL, "-wait=1ms", w.local)
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, errs, id.String()+": not seen by queries")

	s = newServer(t, func(int) (int, string) { return 500, "broken" })
	code, _, errs = invoke(t, w.bucketFlag, "-tenant=team-a", "-url="+s.URL, "-wait=1ms", w.local)
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, "broken")
}

// TestYoungSamplesAreNotAskedFor: the store is not asked for them.
func TestYoungSamplesAreNotAskedFor(t *testing.T) {
	w := newWorld(t)
	w.add(time.Now().Add(-time.Hour), time.Minute)
	s := newServer(t, func(int) (int, string) { return 200, empty })
	code, out, errs := invoke(t, w.bucketFlag, "-tenant=team-a", "-url="+s.URL, w.local)
	require.Equal(t, cli.ExitDone, code, errs)
	require.Contains(t, out, "1 have only samples of the last 11 h")
	require.Zero(t, s.asked)
}

func TestAnInterruptedUploadGoesOn(t *testing.T) {
	w := newWorld(t)
	w.add(longAgo, time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs strings.Builder
	code := cli.Main(ctx, Command(), []string{w.bucketFlag, "-tenant=team-a", w.local}, cli.Env{Stdout: &out, Stderr: &errs})
	require.Equal(t, cli.ExitFailed, code, errs.String())
	code, _, said := invoke(t, w.bucketFlag, "-tenant=team-a", w.local)
	require.Equal(t, cli.ExitDone, code, said)
	require.Len(t, w.manifest().Blocks, 1)
}

// TestAMergedBlockAfterItsParents: a Prometheus went on between two uploads. Equal samples count once.
func TestAMergedBlockAfterItsParents(t *testing.T) {
	w := newWorld(t)
	parent, parentID := w.add(longAgo, time.Minute)
	code, _, errs := invoke(t, w.bucketFlag, "-tenant=team-a", w.local)
	require.Equal(t, cli.ExitDone, code, errs)
	dir, child := w.add(longAgo, time.Minute)
	meta, err := block.ReadMeta(dir)
	require.NoError(t, err)
	meta.Compaction.Level, meta.Compaction.Sources = 2, []ulid.ULID{parentID}
	data, err := meta.Marshal()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, block.MetaName), data, 0o600))
	require.NoError(t, os.RemoveAll(parent))

	code, out, errs := invoke(t, w.bucketFlag, "-tenant=team-a", w.local)
	require.Equal(t, cli.ExitDone, code, errs)
	require.Contains(t, out, child.String())
	m := w.manifest()
	_, listed := m.Find(child)
	require.True(t, listed)
	require.True(t, m.Knows(parentID))
}
