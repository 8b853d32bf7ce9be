package promql

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// skippedByDefault names the upstream scripts that do not apply without start timestamps, each with its reason. With them
// all scripts apply.
var skippedByDefault = map[string]string{
	"testdata/start_timestamps.test": "start timestamps are counted and dropped by default, as a default Prometheus does",
}

// suite runs the upstream scripts except the skipped ones.
type suite struct {
	*testing.T
	skipped map[string]string
	ran     *int
}

// Run skips a script that is listed.
func (s suite) Run(name string, f func(*testing.T)) bool {
	return s.T.Run(strings.TrimPrefix(name, "testdata/"), func(t *testing.T) {
		if why, ok := s.skipped[name]; ok {
			t.Skip(why)
		}
		*s.ran++
		f(t)
	})
}

// TestUpstreamSuite is the promise "Prometheus' exact semantics": the scripts of the engine's own test suite, over
// samples that took the whole way through both tiers.
func TestUpstreamSuite(t *testing.T) {
	all := 0
	t.Run("start timestamps", func(t *testing.T) { all = runSuite(t, true, nil) })
	t.Run("default", func(t *testing.T) {
		require.Equal(t, all, runSuite(t, false, skippedByDefault)+len(skippedByDefault), "a skipped script exists")
	})
}

// runSuite returns how many scripts ran.
func runSuite(t *testing.T, startTimestamps bool, skipped map[string]string) (ran int) {
	engine := promqltest.NewTestEngineWithOpts(t, promql.EngineOpts{
		MaxSamples:               promqltest.DefaultMaxSamplesPerQuery,
		Timeout:                  100 * time.Second,
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		LookbackDelta:            5 * time.Minute,
		EnableDelayedNameRemoval: true,
		UseStartTimestamps:       startTimestamps,
		Parser:                   parser.NewParser(promqltest.TestParserOpts),
	})
	var reads atomic.Int64
	promqltest.RunBuiltinTestsWithStorage(suite{t, skipped, &ran}, engine, func(t testing.TB) storage.Storage {
		return newStack(t, startTimestamps, &reads)
	})
	require.Positive(t, reads.Load(), "no chunk was read from the bucket: the suite saw one tier only")
	return ran
}
