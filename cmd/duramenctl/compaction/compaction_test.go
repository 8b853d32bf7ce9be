package compaction

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor"
	"github.com/duramendb/duramen/compactor/merge"
	"github.com/duramendb/duramen/compactor/plan"
	"github.com/duramendb/duramen/internal/cli"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func invoke(t *testing.T, c cli.Command, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	env := cli.Env{Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }}
	code = cli.Main(t.Context(), c, args, env)
	return code, out.String(), errs.String()
}

// day is the day of the plan that the README shows.
var day = time.Date(2026, 7, 7, 0, 0, 0, 0, time.UTC)

// newBucket is a filesystem bucket with the manifest of a tenant whose last night was not quiet. It has no blocks.
func newBucket(t *testing.T) (dir string, owner *manifest.Owner) {
	t.Helper()
	dir = t.TempDir()
	bkt, err := bucket.NewFilesystem(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, bkt.Close()) })
	owner = manifest.NewOwner(bkt, func() time.Time { return day }, slog.New(slog.DiscardHandler), nil)
	add := func(n int, from, to time.Duration, change func(b *manifest.Block)) {
		for i := range n {
			b := manifest.Block{
				ULID: ulid.MustNew(uint64(day.Add(to).UnixMilli()+int64(i)), nil), MinTime: day.Add(from).UnixMilli(),
				MaxTime: day.Add(to).UnixMilli(), Level: 1, Series: 1000, Samples: 480_000, Chunks: 4000, SizeBytes: 1 << 20,
				Writer: "ingester/a",
			}
			if change != nil {
				change(&b)
			}
			_, err := owner.Add(t.Context(), "team-a", b)
			require.NoError(t, err)
		}
	}
	merged := func(b *manifest.Block) { b.Level, b.Writer = 2, "compactor/x" }
	for slot := range 12 {
		add(1, time.Duration(2*slot-24)*time.Hour, time.Duration(2*slot-22)*time.Hour, merged)
	}
	for slot := range 3 {
		add(1, time.Duration(2*slot)*time.Hour, time.Duration(2*slot+2)*time.Hour, merged)
	}
	add(3, 6*time.Hour, 8*time.Hour, nil)
	add(3, 8*time.Hour, 10*time.Hour, func(b *manifest.Block) { b.IndexBytes, b.SizeBytes = 40<<30, 100<<30 })
	add(3, 10*time.Hour, 12*time.Hour, nil)
	return dir, owner
}

const at = "-at=2026-07-07T13:00:00Z"

// TestPlanIsThatOfTheReadme: what the README shows is what the command prints.
func TestPlanIsThatOfTheReadme(t *testing.T) {
	dir, _ := newBucket(t)
	code, out, errs := invoke(t, PlanCommand(), "-bucket="+dir, at, "-replicas=3", "team-a")
	require.Equal(t, cli.ExitDone, code, errs)
	readme, err := os.ReadFile(filepath.Join("..", "README.md"))
	require.NoError(t, err)
	var shown strings.Builder
	for line := range strings.Lines(out) {
		if line != "\n" {
			shown.WriteString("    ")
		}
		shown.WriteString(line)
	}
	if !strings.Contains(string(readme), shown.String()) {
		t.Errorf("the README shows another plan than\n%s", shown.String())
	}

	code, out, errs = invoke(t, PlanCommand(), "-bucket="+dir, at, "-format=json", "-shipped-up-to=2026-07-07T12:00:00Z", "team-a")
	require.Equal(t, cli.ExitDone, code, errs)
	var p plan.Plan
	require.NoError(t, json.Unmarshal([]byte(out), &p))
	require.Len(t, p.Jobs, 3, "the last slot is complete now")
	require.Equal(t, day.UnixMilli(), p.OldestUncompacted)
}

func TestStatus(t *testing.T) {
	dir, owner := newBucket(t)
	code, out, errs := invoke(t, StatusCommand(), "-bucket="+dir, at, "team-a")
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, out, "! oversized, 2026-07-07 08:00 - 10:00, 3 blocks: ")
	require.Contains(t, out, "in all 300 GiB in 24 blocks, 11.5M samples, from 2026-07-06 00:00 to 2026-07-07 12:00\n")
	require.Contains(t, errs, "a slot of tenant team-a has been waiting for 13h0m0s")
	require.Contains(t, errs, "3 blocks of tenant team-a are left alone: oversized")
	code, _, errs = invoke(t, StatusCommand(), "-bucket="+dir, at, "-max-age=24h", "-max-index-bytes=1000000000000", "team-a")
	require.Equal(t, cli.ExitDone, code, errs)

	m, err := owner.Refresh(t.Context(), "team-a")
	require.NoError(t, err)
	changed := *m
	changed.Version++
	changed.Deletions = []manifest.Deletion{
		{ID: 1, Selectors: []string{`up{job="x"}`}, MinTime: 0, MaxTime: day.UnixMilli(), CreatedAt: day.UnixMilli()},
		{ID: 2, Selectors: []string{`down`}, MinTime: 0, MaxTime: 1, CreatedAt: day.UnixMilli()},
	}
	changed.NextDeletion = 3
	changed.Doomed = &manifest.TenantDeletion{RequestedAt: day.UnixMilli(), GraceUntil: day.Add(24 * time.Hour).UnixMilli()}
	gone := ulid.MustNew(7, nil)
	changed.Removed = []manifest.RemovedBlock{{ULID: gone, RemovedAt: 1, KeepUntil: day.Add(time.Hour).UnixMilli()}}
	changed.Lost = []manifest.LostRange{{MinTime: 0, MaxTime: 1000, Reason: "its index was damaged"}}
	data, err := manifest.Encode(&changed)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.FromSlash(manifest.Key("team-a", changed.Version))), data, 0o600))
	report := filepath.Join(dir, "team-a", "duramen", "quarantine", gone.String()+".json")
	require.NoError(t, os.MkdirAll(filepath.Dir(report), 0o700))
	require.NoError(t, os.WriteFile(report, []byte("{}"), 0o600))

	code, out, errs = invoke(t, StatusCommand(), "-bucket="+dir, at, "team-a")
	require.Equal(t, cli.ExitDone, code, errs)
	for _, line := range []string{
		"the tenant is to be deleted, as was requested at 2026-07-07 00:00; that can be taken back without a loss until 2026-07-08 00:00",
		`deletion 1 of up{job="x"} from 1970-01-01 00:00 to 2026-07-07 00:00: hidden since 2026-07-07 00:00, 13 blocks still to be written without it`,
		"deletions that are worked in everywhere: 1",
		"damaged and set aside: block " + gone.String() + ", kept until 2026-07-07 01:00",
		"report of a damaged block: " + gone.String() + ", in team-a/duramen/quarantine/" + gone.String() + ".json",
		"lost: samples from 1970-01-01 00:00 to 1970-01-01 00:00: its index was damaged",
	} {
		require.Contains(t, out, line+"\n")
	}
	code, out, errs = invoke(t, StatusCommand(), "-bucket="+dir, at, "-format=json", "team-a")
	require.Equal(t, cli.ExitDone, code, errs)
	var st status
	require.NoError(t, json.Unmarshal([]byte(out), &st))
	require.Len(t, st.Deletions[0].Pending, 13)
	require.Equal(t, plan.SkipTenantDeletion, st.Plan.Skips[0].Reason)

	require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.FromSlash(manifest.Key("team-a", changed.Version))), data[1:], 0o600))
	code, _, errs = invoke(t, StatusCommand(), "-bucket="+dir, "team-a")
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, errs, "decode manifest")
}

// TestPlanOfServer asks a compactor whose answer is as the page gives it.
func TestPlanOfServer(t *testing.T) {
	at := day.UnixMilli()
	running := compactor.JobStatus{ID: "b", Kind: plan.KindDay, Reason: "r", MaxTime: 1, Inputs: 2, Bytes: 1}
	answer := compactor.Status{Tenants: []compactor.TenantStatus{{
		Tenant: "team-a", Version: 7, Blocks: 9, UncompactedSlots: 2, OldestUncompactedSlotAge: 5400, PendingDeletions: 1,
		Jobs: []compactor.JobStatus{{
			ID: "a", Kind: plan.KindSlot, Reason: "the slot is complete and has 3 blocks", MinTime: at, MaxTime: at + 7_200_000,
			Inputs: 3, Bytes: 3 << 20, Failures: 2, Again: at + 17_600_000, LastError: "disk full",
		}, running},
		JobsTotal: 4, Running: []compactor.RunningJob{{
			JobStatus: running, Began: at + 14_400_000,
			Progress: merge.Snapshot{Phase: "merging", BytesTotal: 2 << 20, BytesRead: 1 << 20, BytesWritten: 1024},
		}},
		Skips:    []plan.Skip{{Reason: plan.SkipNoCompact, Detail: "marked", MaxTime: 1}},
		LastLook: at + 14_400_000, LastError: "job a: disk full",
	}}}
	var asked string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.String()
		if r.FormValue("tenant") != "team-a" {
			_, _ = io.WriteString(w, `{"tenants":[]}`)
			return
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer server.Close()
	code, out, errs := invoke(t, PlanCommand(), "-url="+server.URL, "team-a")
	require.Equal(t, cli.ExitDone, code, errs)
	require.Equal(t, "/compactor?format=json&tenant=team-a", asked)
	require.Equal(t, `tenant team-a, version 7 of its manifest: 9 blocks, looked at 2026-07-07 04:00
2 waiting, the oldest for 1h30m0s
deletions that are not worked into all blocks yet: 1
last error: job a: disk full

left alone:
  no_compact, 1970-01-01 00:00 - 00:00, 0 blocks: marked

jobs, in their order, 2 of 4:
  slot, 2026-07-07 00:00 to 2026-07-07 02:00, 3 blocks, 3.00 MiB: the slot is complete and has 3 blocks
    failed 2 times, again at 2026-07-07 04:53: disk full
  day, 1970-01-01 00:00 to 1970-01-01 00:00, 2 blocks, 1 B: r
    runs since 2026-07-07 04:00, merging: 1.00 MiB of 2.00 MiB read, 1.00 KiB written
`, out)
	code, out, _ = invoke(t, PlanCommand(), "-url="+server.URL, "-format=json", "team-a")
	require.Equal(t, cli.ExitDone, code)
	want, err := json.Marshal(answer.Tenants[0])
	require.NoError(t, err)
	require.JSONEq(t, string(want), out)
	code, _, errs = invoke(t, PlanCommand(), "-url="+server.URL, "b")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, "does not look after tenant b")
	code, _, _ = invoke(t, PlanCommand(), "-url="+server.URL, "-bucket=.", "team-a")
	require.Equal(t, cli.ExitUsage, code)
	code, _, _ = invoke(t, PlanCommand(), "-url=x", "team-a")
	require.Equal(t, cli.ExitUsage, code)
}

func TestWrongUsageAndMissingThings(t *testing.T) {
	dir, _ := newBucket(t)
	for code, lines := range map[int][][]string{
		cli.ExitUsage: {
			{"-bucket=" + dir},
			{"team-a"},
			{"-bucket=" + dir, "a", "b"},
			{"-bucket=" + dir, "../a"},
			{"-bucket=" + dir, "-format=x", "team-a"},
			{"-bucket=" + dir, "-at=x", "team-a"},
			{"-bucket=" + dir, "-shipped-up-to=x", "team-a"},
		},
		cli.ExitFailed: {{"-bucket=" + dir, "b"}, {"-bucket=" + dir + "/missing", "team-a"}},
	} {
		for _, args := range lines {
			for _, c := range []cli.Command{PlanCommand(), StatusCommand()} {
				got, _, errs := invoke(t, c, args...)
				require.Equal(t, code, got, "%q: %s", args, errs)
			}
		}
	}
}
