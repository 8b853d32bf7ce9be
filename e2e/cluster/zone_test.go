package cluster

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
)

// TestAZoneAwayAndAllAway: of three zones with two ingesters each, one zone is killed; then every process is restarted, one
// after another; all writes and queries go on, those of a real Prometheus too. Then the power goes off everywhere. What was
// acknowledged is there.
func TestAZoneAwayAndAllAway(t *testing.T) {
	s := newStory(t, nil, append(append(ingesters(2), fronts(2)...), back())...)
	prom := s.prometheus()
	s.begin(live)
	s.await("the cluster works", 40, 20)
	before := s.flawless("all are there", nil, 80, 40)

	zone := s.InZone("b", "ingester")
	lost := s.flawless("a zone is killed", func() { kill(zone...) }, 100, 50)
	s.requireGap(gapBar, before, lost)
	s.flawless("it is back", func() { s.start(zone...) }, 40, 20)

	s.flawless("all are restarted, one after another", func() {
		for _, n := range s.Nodes {
			ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
			require.NoError(t, s.Restart(ctx, n, startTimeout))
			cancel()
		}
	}, 40, 20)

	s.phase("the power goes off and on", func() {
		kill(s.Nodes...)
		s.start(s.Nodes...)
	}, 10, 10)
	s.flawless("all is well again", nil, 40, 20)
	s.end()
	prom.verify()
}

// sender is a real Prometheus that scrapes itself and writes it to the cluster, through each front to a tenant of its own.
type sender struct {
	s     *story
	own   *client.Client
	begin int64
}

func (s *story) prometheus() *sender {
	s.t.Helper()
	config := "global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: prometheus\n    static_configs: [{targets: ['" +
		process.Self + "']}]\nremote_write:\n"
	for i, n := range s.With("distributor") {
		config += fmt.Sprintf("  - url: %s/api/v1/push\n    headers: {X-Scope-OrgID: prometheus-%d}\n    protobuf_message: %s\n"+
			"    queue_config: {batch_send_deadline: 500ms, max_backoff: 1s}\n", n.URL(), i,
			[]string{"prometheus.WriteRequest", "io.prometheus.write.v2.Request"}[i%2])
	}
	binary, err := process.Tool("prometheus")
	require.NoError(s.t, err)
	spec, err := process.Prometheus(binary, s.t.TempDir(), config)
	require.NoError(s.t, err)
	ctx, cancel := context.WithTimeout(s.t.Context(), startTimeout)
	defer cancel()
	p, _, err := process.StartReady(ctx, spec)
	require.NoError(s.t, err)
	own := client.Prometheus(p.URL)
	s.t.Cleanup(func() {
		own.CloseIdle()
		p.Kill()
	})
	return &sender{s: s, own: own, begin: client.Now()}
}

// verify waits until every tenant holds exactly what Prometheus' own storage holds.
func (p *sender) verify() {
	t := p.s.t
	t.Helper()
	const selector = `{job="prometheus"}`
	end := client.Now() - 1500 // scrapes are complete by then
	want, err := p.own.Samples(t.Context(), selector, end, end-p.begin)
	require.NoError(t, err)
	require.NotEmpty(t, want)
	client.Sort(want)
	for i, n := range p.s.With("querier") {
		c := client.Duramen(n.URL(), fmt.Sprintf("prometheus-%d", i))
		defer c.CloseIdle()
		var last string
		deadline := time.Now().Add(awaitTimeout)
		for {
			got, err := c.Samples(t.Context(), selector, end, end-p.begin)
			last = fmt.Sprint(err)
			if err == nil {
				client.Sort(got)
				if last = client.Difference(want, got); last == "" {
					break
				}
			}
			require.Less(t, time.Now(), deadline, "%s: %s", c.Tenant, last)
			require.NoError(t, wait(t.Context(), 100*time.Millisecond))
		}
	}
	for _, name := range []string{"prometheus_remote_storage_samples_failed_total", "prometheus_remote_storage_histograms_failed_total"} {
		v, err := p.own.Metric(t.Context(), name)
		require.NoError(t, err)
		require.Zero(t, v, name)
	}
	t.Logf("%d series of Prometheus are equal", len(want))
}
