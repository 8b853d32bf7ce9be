package distributor

import (
	"context"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/tracing"
)

// tracedPush is pushOnce within a request that p may trace.
func tracedPush(p *tracing.Provider, d *Distributor, header http.Header, body []byte) error {
	ctx, span := p.Request(context.Background(), header, "POST /api/v1/push")
	defer span.End()
	return pushContext(ctx, d, format1, body)
}

func provider(t testing.TB, ratio float64) *tracing.Provider {
	t.Helper()
	cfg := tracing.Config{ServiceName: "test", SampleRatio: ratio, OTLPEndpoint: "localhost:1"}
	if ratio < 0 {
		cfg.OTLPEndpoint, cfg.SampleRatio = "", 0
	}
	p, err := tracing.New(cfg, tracing.Identity{}, time.Now, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	return p
}

// TestWhatIsNotSampledAllocatesNothing: tracing is on, and a push that is not sampled costs what it does without.
func TestWhatIsNotSampledAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	d, _ := newTest(t, pusherFunc(numbering), openLimits())
	p, header, body := provider(t, 0), http.Header{}, snappy.Encode(nil, marshal1(t, scrape(500, 0)))
	push := func() {
		if err := tracedPush(p, d, header, body); err != nil {
			t.Error(err)
		}
	}
	push()
	require.Zero(t, testing.AllocsPerRun(50, push))
}

// BenchmarkPush1Traced is BenchmarkPush1 within a request: with tracing off, with one of a hundred sampled, with all.
func BenchmarkPush1Traced(b *testing.B) {
	for name, ratio := range map[string]float64{"off": -1, "0.01": 0.01, "1": 1} {
		b.Run(name, func(b *testing.B) {
			d, _ := newTest(b, pusherFunc(numbering), openLimits())
			p, header, body := provider(b, ratio), http.Header{}, snappy.Encode(nil, marshal1(b, scrape(perRequest, 0)))
			require.NoError(b, tracedPush(p, d, header, body))
			at := time.Now()
			d.now = func() time.Time { return at }
			b.ReportAllocs()
			b.ResetTimer()
			begin := cpuTime()
			for b.Loop() {
				if err := tracedPush(p, d, header, body); err != nil {
					b.Fatal(err)
				}
			}
			perSample(b, begin)
		})
	}
}
