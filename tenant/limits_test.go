package tenant

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newTestLimits(t *testing.T, overrides string) (*Limits, func(string)) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "overrides.yaml")
	write := func(s string) { require.NoError(t, os.WriteFile(file, []byte(s), 0o600)) }
	write(overrides)
	cfg := LimitsConfig{Values: DefaultValues(), OverridesFile: file, ReloadPeriod: 10 * time.Second}
	l, err := NewLimits(cfg, discard(), prometheus.NewRegistry())
	require.NoError(t, err)
	return l, write
}

func TestOverridesChangeOneTenant(t *testing.T) {
	l, _ := newTestLimits(t, "overrides:\n  a: {max_series: 7, out_of_order_window: 30m}\n")
	require.Zero(t, l.MaxSeries("a"), "defaults until loaded")
	require.NoError(t, l.Reload())
	require.Equal(t, 7, l.MaxSeries("a"))
	require.Equal(t, 30*time.Minute, l.OutOfOrderWindow("a"))
	require.Equal(t, DefaultValues().MaxLabelNames, l.MaxLabelNames("a"), "what the file leaves out is the default")
	require.Equal(t, DefaultValues(), l.Values("b"))
}

func TestEpochChangesWithTheTenantsLimitsOnly(t *testing.T) {
	l, write := newTestLimits(t, "overrides: {a: {max_series: 7}, b: {max_series: 8}}")
	before := l.Epoch("a")
	require.NoError(t, l.Reload())
	a, b, c := l.Epoch("a"), l.Epoch("b"), l.Epoch("c")
	require.NotEqual(t, before, a)

	write("overrides: {a: {max_series: 7}, b: {max_series: 9}} # a is as it was")
	require.NoError(t, l.Reload())
	require.Equal(t, a, l.Epoch("a"))
	require.NotEqual(t, b, l.Epoch("b"))
	require.Equal(t, c, l.Epoch("c"))

	seen := map[uint64]bool{before: true, a: true}
	for _, file := range []string{"", "overrides: {a: {max_series: 1}}", "", "overrides: {a: {max_series: 7}}"} {
		write(file)
		require.NoError(t, l.Reload())
		require.False(t, seen[l.Epoch("a")], "an epoch came back after %q", file)
		seen[l.Epoch("a")] = true
	}
	require.Equal(t, 7, l.MaxSeries("a"))
	write("")
	require.NoError(t, l.Reload())
	require.Equal(t, DefaultValues(), l.Values("a"), "a tenant that leaves the file has the defaults again")
}

func TestBadOverridesKeepTheLastGoodOnes(t *testing.T) {
	l, write := newTestLimits(t, "overrides: {a: {max_series: 7}}")
	require.NoError(t, l.Reload())
	epoch := l.Epoch("a")
	for _, tc := range []struct{ name, file, want string }{
		{"unknown limit", "overrides: {a: {max_serie: 1}}", `overrides.a.max_serie: unknown setting; did you mean "max_series"?`},
		{"unknown section", "override: {a: {max_series: 1}}", `override: unknown setting; did you mean "overrides"?`},
		{"wrong type", "overrides: {a: {max_series: many}}", `overrides.a.max_series: "many" is not a whole number`},
		{"out of range", "overrides: {a: {max_series: -1}}", "overrides.a: max_series is -1; use a number of series, or 0"},
		{"future", "overrides: {a: {future_tolerance: 2h}}", "future_tolerance is 2h0m0s; use 0s to 30m"},
		{"not a tenant", "overrides: {../a: {max_series: 1}}", "tenant ID"},
		{"one bad among good", "overrides: {a: {max_series: 1}, b: {max_series: -1}}", "overrides.b"},
		{"not YAML", "overrides: {", "parse YAML"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			failures := testutil.ToFloat64(l.metrics.reloadFailures)
			write(tc.file)
			require.ErrorContains(t, l.Reload(), tc.want)
			require.Equal(t, 7, l.MaxSeries("a"))
			require.Equal(t, epoch, l.Epoch("a"))
			require.InDelta(t, failures+1, testutil.ToFloat64(l.metrics.reloadFailures), 0)
		})
	}
	require.NoError(t, os.Remove(l.cfg.OverridesFile))
	require.ErrorIs(t, l.Reload(), os.ErrNotExist)
	require.ErrorIs(t, l.Check(t.Context()), os.ErrNotExist)
	write("overrides: {a: {max_series: 7}}")
	require.NoError(t, l.Reload())
	require.NoError(t, l.Check(t.Context()))
	require.Equal(t, 7, l.MaxSeries("a"))
}

func TestRunFollowsTheFile(t *testing.T) {
	l, write := newTestLimits(t, "overrides: {a: {max_series: 7}}")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		time.Sleep(11 * time.Second) // the bubble's clock
		synctest.Wait()
		require.Equal(t, 7, l.MaxSeries("a"))
		write("overrides: {a: {max_series: x}}")
		time.Sleep(20 * time.Second)
		synctest.Wait()
		require.Equal(t, 7, l.MaxSeries("a"))
		require.InDelta(t, 2, testutil.ToFloat64(l.metrics.reloadFailures), 0)
		write("overrides: {a: {max_series: 8}}")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, 8, l.MaxSeries("a"))
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}

func TestServiceRefusesToStartOnABadFile(t *testing.T) {
	l, _ := newTestLimits(t, "overrides: {a: {max_series: -1}}")
	s := l.Service()
	require.ErrorContains(t, s.Start(t.Context()), "max_series is -1")
	<-s.Done()

	l, _ = newTestLimits(t, "")
	s = l.Service()
	require.NoError(t, s.Start(t.Context()))
	require.NoError(t, s.Stop())
}

func TestReadersSeeOneStateOrTheOther(t *testing.T) {
	l, write := newTestLimits(t, "overrides: {a: {max_series: 7}}")
	require.NoError(t, l.Reload())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 1000 {
				if n := l.MaxSeries("a"); n != 7 && n != 8 {
					t.Errorf("limit %d was never set", n)
				}
			}
		})
	}
	write("overrides: {a: {max_series: 8}}")
	require.NoError(t, l.Reload())
	wg.Wait()
}

func TestValidateNamesFieldValueAndWhatIsRight(t *testing.T) {
	defaults := DefaultValues()
	require.NoError(t, defaults.Validate())
	bad := Values{
		IngestionRate: -1, IngestionBurst: -1, MaxSeries: -1, MaxHistogramBuckets: -1, OutOfOrderWindow: -1,
		FutureTolerance: time.Hour, MaxMetadata: -1, MaxExemplars: -1, IngestionTenantShardSize: -1,
		MaxFetchedSeriesPerQuery: -1, MaxFetchedChunkBytesPerQuery: -1, MaxQueryLength: -1, MaxQueuedQueries: -1,
		RetentionPeriod: -1, MaxDeletions: -1,
	}
	err := bad.Validate()
	var fields map[string]any
	text, e := yaml.Marshal(bad)
	require.NoError(t, e)
	require.NoError(t, yaml.Unmarshal(text, &fields))
	for field := range fields {
		require.ErrorContains(t, err, field+" is ", "no range is checked")
	}
	cfg := LimitsConfig{Values: defaults}
	require.ErrorContains(t, cfg.Validate(), "reload_period is 0s")
	_, err = NewLimits(cfg, discard(), nil)
	require.ErrorContains(t, err, "limits: reload_period")
}

func TestIngestionBurst(t *testing.T) {
	v := DefaultValues()
	require.Zero(t, StaticLimits(v).IngestionBurst("a"))
	v.IngestionRate = 0.01
	require.Equal(t, 1, StaticLimits(v).IngestionBurst("a"))
	v.IngestionRate = 100
	require.Equal(t, 1000, StaticLimits(v).IngestionBurst("a"))
	v.IngestionBurst = 50
	require.Equal(t, 50, StaticLimits(v).IngestionBurst("a"))
}

func TestFlagsSetTheDefaults(t *testing.T) {
	f := flag.NewFlagSet("test", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	var cfg LimitsConfig
	cfg.RegisterFlags(f)
	require.NoError(t, f.Parse([]string{"-limits.max-series=5", "-limits.future-tolerance=1m"}))
	require.Equal(t, 5, cfg.MaxSeries)
	require.Equal(t, time.Minute, cfg.FutureTolerance)
	require.NoError(t, cfg.Validate())
}

func TestAskingAllocatesNothing(t *testing.T) {
	l, _ := newTestLimits(t, "overrides: {a: {max_series: 7}}")
	require.NoError(t, l.Reload())
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = l.MaxSeries("a") + l.MaxLabelNames("b") }))
}
