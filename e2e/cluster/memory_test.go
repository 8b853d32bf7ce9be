package cluster

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/loadplan"
	"github.com/duramendb/duramen/internal/remotewrite"
)

// memoryBar is how much more memory a distributor may take while ingesters hang and its clients try again and again.
const memoryBar = 384 << 20

// TestMemoryOfADistributor: one ingester hangs, then two, while a crowd of clients writes as fast as it is answered, and
// again what was not answered within a second. The distributor's memory stays within bounds, and afterwards it works.
func TestMemoryOfADistributor(t *testing.T) {
	s := newStory(t, nil, append(append(ingesters(1), Member{Name: "distributor-0", Target: "distributor", Zone: "a"}),
		Member{Name: "querier-0", Target: "querier", Zone: "a"})...)
	d := s.Node("distributor-0")
	calm := live
	calm.Askers = 0
	s.begin(calm)
	s.await("the cluster works", 40, 0)

	var peak int64
	crowd := startCrowd(t, d)
	await := func(what string, answers int64) {
		t.Helper()
		want := crowd.answered.Load() + answers
		s.until(what, func() bool {
			rss, err := d.RSS()
			require.NoError(t, err)
			peak = max(peak, rss)
			return crowd.answered.Load() >= want
		})
		t.Logf("%s: %d MiB resident at most, %d requests stored, %d refused, %d without an answer", what, peak>>20,
			crowd.stored.Load(), crowd.refused.Load(), crowd.cut.Load())
	}
	await("all are there", 400)
	calmPeak := peak
	require.NoError(t, s.Node("ingester-b-0").Pause())
	await("one hangs", 400)
	require.NoError(t, s.Node("ingester-c-0").Pause())
	await("two hang", 64)
	require.LessOrEqual(t, peak, calmPeak+memoryBar, "bytes resident")
	require.NoError(t, s.Node("ingester-b-0").Resume())
	require.NoError(t, s.Node("ingester-c-0").Resume())
	crowd.end()
	s.await("it works again", 40, 0)
	s.flawless("all is well", nil, 40, 0)
	s.end()
}

// crowd is a number of clients that write large requests without a pause and wait for an answer for a second only.
type crowd struct {
	answered, stored, refused, cut atomic.Int64

	cancel context.CancelFunc
	group  sync.WaitGroup
}

const (
	crowdSize     = 16
	crowdPatience = time.Second
)

func startCrowd(t *testing.T, d *Node) *crowd {
	t.Helper()
	plan, err := loadplan.New(loadplan.Config{
		Seed: 1, Tenants: []string{"crowd"}, Series: crowdSize * 2000, Interval: time.Second, Scrapes: 3600,
		Start: time.Now().Add(-time.Hour).UnixMilli(), PerRequest: 2000, Protocols: []remotewrite.Version{remotewrite.V1},
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	c := &crowd{cancel: cancel}
	t.Cleanup(c.end)
	for chunk := range plan.Chunks() {
		client := &remotewrite.Client{
			URL: d.URL() + "/api/v1/push", Tenant: "crowd", HTTP: &http.Client{Timeout: crowdPatience, Transport: &http.Transport{}},
		}
		c.group.Go(func() {
			defer client.HTTP.CloseIdleConnections()
			for scrape := 0; ctx.Err() == nil; {
				body := s2.EncodeSnappy(nil, plan.AppendRequest(nil, 0, chunk, scrape))
				answer, err := client.Push(ctx, remotewrite.V1, body)
				switch {
				case err != nil:
					c.cut.Add(1)
				case answer.OK():
					c.stored.Add(1)
					scrape = min(scrape+1, 3599) // not into the future; then the same again
				default:
					c.refused.Add(1)
				}
				c.answered.Add(1)
			}
		})
	}
	return c
}

func (c *crowd) end() {
	c.cancel()
	c.group.Wait()
}
