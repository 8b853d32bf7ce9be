package querier

import (
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

func TestRemembered(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "querier")
	deletions := []manifest.Deletion{{ID: 3, Selectors: []string{`m{i="1"}`}, MinTime: 1, MaxTime: 9, CreatedAt: 10}}
	lost := []manifest.LostRange{{MinTime: 1, MaxTime: 2, Reason: "damage"}}
	files := func() int {
		entries, err := os.ReadDir(dir)
		if os.IsNotExist(err) {
			return 0
		}
		require.NoError(t, err)
		return len(entries)
	}
	life := func() *remembered { return newRemembered(dir, slog.New(slog.DiscardHandler)) }
	require.Nil(t, recalled(life(), "a"))
	r := life()
	r.keep("a", &manifest.Manifest{})
	require.Zero(t, files(), "a name that may be made up")
	r.keep("a", &manifest.Manifest{Version: 1})
	require.NotNil(t, recalled(life(), "a"), "that nothing was deleted is worth knowing")
	r.keep("a", &manifest.Manifest{Version: 2, Deletions: deletions, Lost: lost})
	for _, r := range []*remembered{r, life()} {
		got := recalled(r, "a")
		require.Equal(t, &manifest.Manifest{Tenant: "a", Deletions: deletions, Lost: lost}, got)
		require.Nil(t, recalled(r, "b"))
	}
	life().keep("a", &manifest.Manifest{Version: 3})
	require.Empty(t, recalled(life(), "a").Deletions, "cancelled")
	r = life()
	r.keep("a", &manifest.Manifest{Version: 4, Doomed: &manifest.TenantDeletion{RequestedAt: 1}})
	require.Zero(t, files())
	require.Nil(t, recalled(r, "a"))

	for _, bad := range []string{"", "{", `{"deletions":[{"id":1,"selectors":["{"]}]}`} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "a.json"), []byte(bad), 0o600))
		r = life()
		require.Nil(t, recalled(r, "a"), bad)
		r.keep("a", &manifest.Manifest{Version: 2, Deletions: deletions})
		require.Equal(t, deletions, recalled(life(), "a").Deletions, bad)
	}
	newRemembered("", nopLog).keep("a", &manifest.Manifest{Version: 1})
	require.Nil(t, recalled(newRemembered("", nopLog), "a"))
}

// TestALookThatEndsLate does not undo what a deletion noted meanwhile, be it of a tenant's series or of the tenant.
func TestALookThatEndsLate(t *testing.T) {
	dir := t.TempDir()
	deletions := []manifest.Deletion{{ID: 1, Selectors: []string{"m"}, MaxTime: 9, CreatedAt: 10}}
	for _, late := range []uint64{0, 1} {
		r := newRemembered(dir, nopLog)
		r.keep("a", &manifest.Manifest{Version: late})
		r.keep("a", &manifest.Manifest{Version: 2, Deletions: deletions})
		r.keep("a", &manifest.Manifest{Version: late})
		for _, r := range []*remembered{r, newRemembered(dir, nopLog)} {
			require.NotNil(t, recalled(r, "a"), late)
			require.Equal(t, deletions, recalled(r, "a").Deletions, late)
		}
		r.keep("a", &manifest.Manifest{Version: 3, Doomed: &manifest.TenantDeletion{RequestedAt: 1}})
		r.keep("a", &manifest.Manifest{Version: 2, Deletions: deletions})
		require.Nil(t, recalled(r, "a"), late)
	}
	newRemembered(dir, nopLog).keep("a", &manifest.Manifest{Version: 7, Deletions: deletions})
	r := newRemembered(dir, nopLog)
	r.keep("a", &manifest.Manifest{Version: 1})
	require.Empty(t, recalled(r, "a").Deletions, "of another bucket than in the life before")
}

// TestDeletionsWithoutTheBucket: what the last life knew is hidden; where nothing is known the answer says so.
func TestDeletionsWithoutTheBucket(t *testing.T) {
	cfg := testConfig(t)
	cfg.Dir = t.TempDir()
	pts := points(now.UnixMilli()-hour, now.UnixMilli(), hour/60)
	rec := &fakeRecent{t: t, answer: func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return &listQuerier{t: t, points: pts}, duramenpb.Held{}, nil
	}}
	life := func(m Manifests) http.Handler {
		q, err := New(cfg, rec, &tsdbExtras{t: t}, brokenStore{}, m, noLimits, clock, nopLog, nil)
		require.NoError(t, err)
		return q.Handler("/prometheus")
	}
	ask := func(h http.Handler) string {
		w := do(t, h, http.MethodGet, "query", form("query=count(m)"))
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		return w.Body.String()
	}
	away := &moody{err: errkind.New(errkind.Unavailable, "bucket in Hamburg: connection refused"), looks: map[string]int{}}
	require.Contains(t, ask(life(away)), `"warnings":["samples that were deleted may be shown`)

	there := &forgetful{&fakeManifests{current: &manifest.Manifest{
		Tenant: tenantID, Version: 1,
		Deletions: []manifest.Deletion{{ID: 1, Selectors: []string{"m"}, MaxTime: now.UnixMilli(), CreatedAt: now.UnixMilli()}},
	}}}
	require.Contains(t, ask(life(there)), `"result":[]`)
	file := filepath.Join(cfg.Dir, tenantID+".json")
	old := now.Add(-time.Hour)
	require.NoError(t, os.Chtimes(file, old, old))
	got := ask(life(away))
	require.Contains(t, got, `"result":[]`)
	require.Contains(t, got, `"warnings":["deletions of series are as of `+old.UTC().Format(time.RFC3339)+`: the bucket`)

	require.NotContains(t, ask(life(there)), "warnings")
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.True(t, info.ModTime().After(old), "it was so later as well")
}

func recalled(r *remembered, tenantID string) *manifest.Manifest {
	m, _ := r.recall(tenantID)
	return m
}

// forgetful has no manifest in memory.
type forgetful struct{ *fakeManifests }

func (*forgetful) Known(string) *manifest.Manifest { return nil }
