package cluster

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/internal/loadledger"
	"github.com/duramendb/duramen/internal/loadverify"
)

// zones of every cluster here.
var zones = []string{"a", "b", "c"}

// ingesters returns members with the ordinals [0, n) in each zone.
func ingesters(n int) []Member {
	var members []Member
	for ordinal := range n {
		for _, zone := range zones {
			members = append(members, Member{Name: fmt.Sprintf("ingester-%s-%d", zone, ordinal), Target: "ingester", Zone: zone})
		}
	}
	return members
}

// fronts returns n members that take writes and queries.
func fronts(n int) []Member {
	var members []Member
	for i := range n {
		members = append(members, Member{Name: fmt.Sprintf("front-%d", i), Target: "distributor,querier", Zone: zones[i%len(zones)]})
	}
	return members
}

// back is the member that has all other roles.
func back() Member { return Member{Name: "back-0", Target: "store-gateway,compactor", Zone: zones[2]} }

// quick are settings of every process: a restart fails no request when its clients have the time to turn away.
var quick = []string{"-server.shutdown-delay=1s"}

// story is a cluster and a load on it.
type story struct {
	*Cluster

	t      *testing.T
	load   *Load
	cancel context.CancelFunc
	ended  chan error
	// pause is the longest by which the machine was late to wake the story, in the present phase.
	pause time.Duration
	// allowed is what a panic may be about, "" for nothing.
	allowed string
}

// newStory starts a cluster. At the end of the test all of it is killed; a data race or a panic in a log fails the test, and
// the ends of the logs are shown if it failed.
func newStory(t *testing.T, args []string, members ...Member) *story {
	t.Helper()
	c, err := New(Config{Binary: duramenBinary, Dir: t.TempDir(), Args: append(append([]string{}, quick...), args...), Members: members})
	require.NoError(t, err)
	s := &story{Cluster: c, t: t}
	t.Cleanup(func() {
		if s.cancel != nil {
			s.cancel()
			<-s.ended
			s.load.Close()
		}
		c.Close()
		for _, fault := range c.FaultsInLogs() {
			if s.allowed == "" || !strings.Contains(fault, s.allowed) {
				t.Error(fault)
			}
		}
		if t.Failed() {
			for _, n := range c.Nodes {
				if n.Process != nil {
					t.Logf("the end of the log of %s:\n%s", n.Name, n.LogTail(1500))
				}
			}
		}
	})
	s.start(c.Nodes...)
	return s
}

// start starts nodes and waits until they are ready.
func (s *story) start(nodes ...*Node) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), startTimeout)
	defer cancel()
	require.NoError(s.t, s.Start(ctx, nodes...))
}

// begin lets a load write and ask through all nodes that do so.
func (s *story) begin(cfg LoadConfig) {
	s.t.Helper()
	rnd := random(s.t)
	cfg.Seed = rnd.Uint64()
	var err error
	s.load, err = NewLoad(cfg, URLs(s.With("distributor")), URLs(s.With("querier")))
	require.NoError(s.t, err)
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(s.t.Context())
	s.ended = make(chan error, 1)
	go func() {
		defer close(s.ended)
		s.ended <- s.load.Run(ctx, rnd)
	}()
}

// live is a load that leaves most of the machine to others: forty small requests a second.
var live = LoadConfig{
	Tenant: "live", Pods: 16, PerRequest: 2, Interval: 200 * time.Millisecond, Scrapes: 1500, Askers: 2,
}

// awaitTimeout is how long the story waits for something to happen.
const awaitTimeout = 60 * time.Second

// await returns when so many more writes and queries have succeeded.
func (s *story) await(what string, writes, queries int) {
	s.t.Helper()
	writes += s.load.Writes.succeeded()
	queries += s.load.Queries.succeeded()
	s.until(what, func() bool { return s.load.Writes.succeeded() >= writes && s.load.Queries.succeeded() >= queries })
}

// untilEvery is how often the story looks.
const untilEvery = 5 * time.Millisecond

// until returns when a condition holds. A load that ends meanwhile fails the story.
func (s *story) until(what string, holds func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(awaitTimeout)
	for !holds() {
		var ended <-chan error
		if s.cancel != nil {
			ended = s.ended
		}
		asleep := time.Now()
		select {
		case err := <-ended:
			s.cancel = nil
			s.load.Close()
			require.NoError(s.t, err, what)
			require.FailNow(s.t, "the load is over", what)
		case <-time.After(untilEvery):
			s.pause = max(s.pause, time.Since(asleep)-untilEvery)
		}
		if time.Now().After(deadline) {
			writes, queries := s.load.Writes.Since(deadline.Add(-awaitTimeout)), s.load.Queries.Since(deadline.Add(-awaitTimeout))
			require.FailNow(s.t, "not in time: "+what, "writes: %s%s\nqueries: %s%s", writes, writes.First(), queries, queries.First())
		}
	}
}

// phase is a part of a story.
type phase struct {
	writes, queries Summary
	pause           time.Duration // story.pause
}

// phase does something, waits until so many more writes and queries succeeded, and returns what happened from the moment
// before it was done.
func (s *story) phase(what string, do func(), writes, queries int) phase {
	s.t.Helper()
	from := time.Now()
	s.pause = 0
	if do != nil {
		do()
	}
	s.await(what, writes, queries)
	p := phase{s.load.Writes.Since(from), s.load.Queries.Since(from), s.pause}
	s.t.Logf("%s: writes: %s; queries: %s", what, p.writes, p.queries)
	return p
}

// flawless is a phase in which nothing may fail.
func (s *story) flawless(what string, do func(), writes, queries int) phase {
	s.t.Helper()
	p := s.phase(what, do, writes, queries)
	require.Empty(s.t, p.writes.Failed, "%s: failed writes:%s", what, p.writes.First())
	require.Empty(s.t, p.queries.Failed, "%s: failed queries:%s", what, p.queries.First())
	return p
}

// end ends the load, and has everything verified by every querier.
func (s *story) end() {
	s.t.Helper()
	s.stop()
	for _, n := range s.With("querier") {
		s.verify(n)
	}
	s.t.Log(s.load.Tally())
}

// stop ends the load.
func (s *story) stop() {
	s.t.Helper()
	s.cancel()
	err := <-s.ended
	s.cancel = nil
	s.load.Close()
	require.NoError(s.t, err)
}

// verify reads everything back from a node.
func (s *story) verify(n *Node) {
	s.t.Helper()
	defer s.load.Close()
	report, err := s.load.Verify(s.t.Context(), n.URL())
	require.NoError(s.t, err, n.Name)
	require.Empty(s.t, report.Warnings, n.Name)
	require.True(s.t, report.OK(), "%s: %v", n.Name, report.First[:min(len(report.First), 10)])
	for _, way := range []string{loadverify.Query, loadverify.RemoteRead} {
		tally := report.Ways[way]
		s.t.Logf("%s, by %s: %d of %d acknowledged samples, %d of %d of unknown fate, %s", n.Name, way,
			tally.Found[loadledger.Acknowledged]+tally.Hidden, tally.Expected[loadledger.Acknowledged],
			tally.Found[loadledger.Unknown], tally.Expected[loadledger.Unknown], report.Took.Round(time.Millisecond))
	}
}

// kill ends nodes with SIGKILL, all before it waits for any.
func kill(nodes ...*Node) {
	for _, n := range nodes {
		n.Process.SignalKill()
	}
	for _, n := range nodes {
		n.Kill()
	}
}

// wipe removes all that a node has on its disk. It must not run.
func (s *story) wipe(n *Node) {
	s.t.Helper()
	require.NoError(s.t, os.RemoveAll(n.Data()))
}

// client returns a client of a node for the load's tenant.
func (s *story) client(n *Node) *client.Client {
	c := client.Duramen(n.URL(), s.load.cfg.Tenant)
	s.t.Cleanup(c.CloseIdle)
	return c
}

const (
	// gapBar is the longest time in which no write succeeds when one ingester is killed.
	gapBar = 250 * time.Millisecond
	// silentBar is the same when one says nothing any more, which is noticed only by waiting.
	silentBar = 2 * gapBar
)

// requireGap holds the gap of a phase against the bar, where the machine lets anybody meet it: before the kill, nothing was
// wrong, and a pause then is the machine's own; so it is when the story itself was woken late.
func (s *story) requireGap(bar time.Duration, before, after phase) {
	s.t.Helper()
	if before.writes.Gap > bar/2 {
		s.t.Logf("the machine is too busy for the bar of %s: without any fault the largest gap was %s, and %s with the kill",
			bar, before.writes.Gap, after.writes.Gap)
		return
	}
	if after.writes.Gap > bar && after.pause > bar/10 {
		s.t.Logf("the machine is too busy for the bar of %s: it woke the story %s late, and the largest gap was %s",
			bar, after.pause, after.writes.Gap)
		return
	}
	require.LessOrEqual(s.t, after.writes.Gap, bar, "the largest time in which no write succeeded")
}
