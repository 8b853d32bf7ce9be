package runflags

import (
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/loadplan"
	"github.com/duramendb/duramen/internal/remotewrite"
)

var now = time.Date(2026, 7, 30, 12, 0, 0, 123e6, time.UTC)

func parse(t *testing.T, args string) (*Flags, string) {
	t.Helper()
	var r Flags
	f := flag.NewFlagSet("test", flag.ContinueOnError)
	tenant := f.String("tenant", "", "")
	f.String("url", "", "")
	r.Register(f)
	require.NoError(t, f.Parse(strings.Fields(args)))
	return &r, *tenant
}

func config(t *testing.T, args string) (loadplan.Config, error) {
	t.Helper()
	r, tenant := parse(t, args)
	return r.Config(tenant, now)
}

func TestDefaults(t *testing.T) {
	cfg, err := config(t, "")
	require.NoError(t, err)
	require.Equal(t, loadplan.Config{
		Seed: 1, Tenants: []string{""}, Series: 10_000, Start: now.Add(-10 * time.Minute).UnixMilli(), Interval: 15 * time.Second,
		Scrapes: 40, Histograms: true, PerRequest: 2000, Protocols: []remotewrite.Version{remotewrite.V1, remotewrite.V2},
	}, cfg)
}

func TestTimesAndTenants(t *testing.T) {
	cfg, err := config(t, "-samples=1000001 -series=500 -tenants=2 -interval=1s -to=2026-07-30 -protocol=2")
	require.NoError(t, err)
	require.Equal(t, []string{"load-0", "load-1"}, cfg.Tenants)
	require.Equal(t, 1001, cfg.Scrapes)
	require.Equal(t, now.Truncate(24*time.Hour).Add(-1001*time.Second).UnixMilli(), cfg.Start)
	require.Equal(t, []remotewrite.Version{remotewrite.V2}, cfg.Protocols)

	cfg, err = config(t, "-from=now -to=+1m -tenant=x -tenants=3 -protocol=1")
	require.NoError(t, err)
	require.Equal(t, []string{"x-0", "x-1", "x-2"}, cfg.Tenants)
	require.Equal(t, now.UnixMilli(), cfg.Start)
	require.Equal(t, 4, cfg.Scrapes)

	for args, want := range map[string]string{
		"-protocol=3":                         "-protocol",
		"-from=never":                         "-from",
		"-to=never":                           "-to",
		"-from=now":                           "no sample",
		"-from=-1h -samples=5":                "give one of them",
		"-samples=-5":                         "-samples",
		"-samples=9000000000000000000":        "-samples",
		"-interval=-1s":                       "-interval",
		"-interval=1ns":                       "interval",
		"-series=70":                          "series",
		"-tenants=0":                          "tenants",
		"-samples=100 -series=0":              "-samples",
		"-churn=-1":                           "churn",
		"-request=10":                         "request",
		"-tenant=a/b":                         "-tenant: tenant ID",
		"-samples=100 -interval=0s -series=5": "-interval",
	} {
		_, err := config(t, args)
		require.ErrorContains(t, err, want, args)
	}
}

// TestArgsNameTheSameRun: what load prints for verify is the run that it sent.
func TestArgsNameTheSameRun(t *testing.T) {
	for _, args := range []string{
		"", "-tenant=x", "-tenants=3 -tenant=x", "-tenants=2", "-churn=0.3 -histograms=false -seed=18446744073709551615",
		"-samples=123456 -interval=1500ms -request=50", "-to=2026-07-30T11:59:59.999Z",
	} {
		r, tenant := parse(t, args)
		cfg, err := r.Config(tenant, now)
		require.NoError(t, err)
		again, tenant := parse(t, r.Args(tenant, cfg))
		same, err := again.Config(tenant, now.Add(time.Hour))
		require.NoError(t, err)
		require.Equal(t, cfg, same, args)
		require.Contains(t, Describe(cfg), cfg.Run())
	}
}

func TestGiven(t *testing.T) {
	r, _ := parse(t, "-url=x -seed=1 -series=500 -tenant=a")
	require.Equal(t, []string{"-seed", "-series", "-tenant"}, r.Given())
}
