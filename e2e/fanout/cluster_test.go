package fanout

import (
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/ingester"
	"github.com/duramendb/duramen/ingester/ingestrpc"
	"github.com/duramendb/duramen/internal/peerconn"
	"github.com/duramendb/duramen/internal/rpcframe"
	"github.com/duramendb/duramen/querier/fanout"
	"github.com/duramendb/duramen/ring"
	"github.com/duramendb/duramen/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	tenantID = "a"
	zones    = 3
	each     = 2 // ingesters in a zone
)

var (
	quiet = slog.New(slog.DiscardHandler)
	// now is where clocks stand while samples come, and where a block of two hours begins.
	now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	// everything is a view that leaves all to the ingesters, which have been there since then.
	begin      = now.Add(-12 * time.Hour).UnixMilli()
	everything = duramenpb.View{Cut: begin}
)

type noLimits struct{}

func (noLimits) Epoch(string) uint64                   { return 0 }
func (noLimits) MaxSeries(string) int                  { return 0 }
func (noLimits) MaxMetadata(string) int                { return 10_000 }
func (noLimits) MaxExemplars(string) int               { return 10_000 }
func (noLimits) OutOfOrderWindow(string) time.Duration { return 6 * time.Hour }

// listing is a manifest in memory.
type listing struct {
	mu sync.Mutex
	m  *manifest.Manifest
}

func (*listing) Lost(context.Context, string, manifest.LostRange) error { return nil }

func (c *listing) Current(context.Context, string) (*manifest.Manifest, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m, nil
}

func (c *listing) Add(_ context.Context, _ string, b manifest.Block) (manifest.Added, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b.AddedVersion = c.m.Version + 1
	c.m = &manifest.Manifest{Tenant: tenantID, Version: b.AddedVersion, Blocks: append(slices.Clone(c.m.Blocks), b)}
	return manifest.Added{Version: b.AddedVersion}, nil
}

// newIngester returns one whose disk is a day old: what it holds is all there is.
func newIngester(t *testing.T) *ingester.Ingester {
	t.Helper()
	var started atomic.Bool
	clock := func() time.Time {
		if started.Load() {
			return now
		}
		return now.Add(-24 * time.Hour)
	}
	i, err := ingester.New(ingester.Config{
		Dir: filepath.Join(t.TempDir(), "ingester"), Writer: "test", WALSync: ingester.SyncInterval, WALCompression: "none",
		MinFreeBytes: 1, IdleTimeout: time.Hour, BlockRetention: 12 * time.Hour, ShipInterval: time.Hour,
	}, bucket.NewInMemory(), &listing{m: &manifest.Manifest{Tenant: tenantID}}, noLimits{},
		clock, quiet, prometheus.NewRegistry())
	require.NoError(t, err)
	s := i.Service()
	require.NoError(t, s.Start(context.Background()))
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	// The tenant is a day old, too: at its first sample an ingester promises nothing of the time before.
	b := duramenpb.Batch{
		Floats: []duramenpb.Float{{T: clock().UnixMilli(), V: 1}},
		Series: []duramenpb.Series{{Labels: labels.FromStrings("__name__", "first"), FloatsEnd: 1}},
	}
	require.NoError(t, i.Push(context.Background(), tenantID, &b, &duramenpb.PushResult{}))
	started.Store(true)
	return i
}

// node is an ingester behind a server on loopback.
type node struct {
	*ingester.Ingester

	zone, ordinal int
	address       string
	reads         *ingestrpc.ReadServer
	server        *grpc.Server
	served        sync.WaitGroup
}

func startNode(t *testing.T, zone, ordinal int) *node {
	t.Helper()
	n := &node{Ingester: newIngester(t), zone: zone, ordinal: ordinal, address: "127.0.0.1:0"}
	var cfg ingestrpc.ReadServerConfig
	cfg.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	var err error
	n.reads, err = ingestrpc.NewReadServer(cfg, n.Ingester, n.storage(), quiet, nil)
	require.NoError(t, err)
	n.serve(t)
	t.Cleanup(func() {
		n.stop()
		n.reads.Wait()
	})
	return n
}

// storage is the identity of the node's disk.
func (n *node) storage() string { return fmt.Sprintf("disk %d of zone %d", n.ordinal, n.zone) }

// serve listens at the node's address.
func (n *node) serve(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", n.address)
	require.NoError(t, err)
	n.address = l.Addr().String()
	server := grpc.NewServer(
		grpc.ForceServerCodecV2(rpcframe.Codec{}), grpc.StreamInterceptor(tenant.StreamInterceptor), grpc.WaitForHandlers(true),
	)
	n.reads.Register(server)
	n.server = server
	n.served.Go(func() { _ = server.Serve(l) })
}

// stop ends all calls and connections.
func (n *node) stop() {
	n.server.Stop()
	n.served.Wait()
}

// cluster is the ingesters, a fan-out over them, and an ingester that has all that was acknowledged.
type cluster struct {
	*fanout.Fanout

	nodes  []*node
	oracle *ingester.Ingester
	ring   *ring.Ring
	client *ingestrpc.ReadClient
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{oracle: newIngester(t)}
	var entries []ring.Entry
	for z := range zones {
		for o := range each {
			n := startNode(t, z, o)
			c.nodes = append(c.nodes, n)
			entries = append(entries, ring.MemberEntry(ring.Member{
				ID: fmt.Sprintf("%c%d", 'a'+z, o), Zone: fmt.Sprintf("zone-%c", 'a'+z), Ordinal: o, State: ring.Active,
				Roles: []ring.Role{ring.RoleIngester}, Epoch: 1, Address: n.address, StorageID: n.storage(),
				Seen: time.Now().UnixMilli(),
			}))
		}
	}
	c.ring = ring.New(ring.Config{ReplicationFactor: zones}, entries, time.Now())
	var settings peerconn.Config
	var reads ingestrpc.ReadClientConfig
	f := flag.NewFlagSet("", flag.PanicOnError)
	settings.RegisterFlags(f)
	reads.RegisterFlags(f)
	pool, err := peerconn.New(settings, quiet, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pool.Close()) })
	c.client, err = ingestrpc.NewReadClient(reads, ingestrpc.PoolDial(pool), quiet, nil)
	require.NoError(t, err)
	c.Fanout, err = fanout.New(fanout.Config{QuorumWait: 100 * time.Millisecond}, c, c, "zone-a", time.Now, quiet, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Fanout.Close()) })
	return c
}

// Ring implements fanout.Rings.
func (c *cluster) Ring() *ring.Ring { return c.ring }

// Member implements fanout.Members.
func (c *cluster) Member(m ring.Member) fanout.Member { return c.client.Reader(m.Address, m.StorageID) }

// zone returns the nodes of a zone.
func (c *cluster) zone(z int) []*node { return c.nodes[z*each : (z+1)*each] }

// owns reports whether a node is the one of its zone that has the series.
func (n *node) owns(lset labels.Labels) bool {
	h := fnv.New32a()
	_, _ = h.Write([]byte(lset.String()))
	return int(h.Sum32()>>8)%each == n.ordinal
}

// entry is a series with samples.
type entry struct {
	lset       labels.Labels
	floats     []duramenpb.Float
	histograms []duramenpb.Histogram
	exemplars  []duramenpb.Exemplar
	skip       int // the zone that does not get it; -1 none
}

// write stores entries as a quorum would: all zones but one at most.
func (c *cluster) write(t *testing.T, entries []entry, metadata ...duramenpb.Metadata) {
	t.Helper()
	push := func(i *ingester.Ingester, wanted func(*entry) bool) {
		var b duramenpb.Batch
		for n := range entries {
			e := &entries[n]
			if !wanted(e) {
				continue
			}
			b.Floats, b.Histograms = append(b.Floats, e.floats...), append(b.Histograms, e.histograms...)
			b.Exemplars = append(b.Exemplars, e.exemplars...)
			b.Series = append(b.Series, duramenpb.Series{
				Labels: e.lset, FloatsEnd: len(b.Floats), HistogramsEnd: len(b.Histograms), ExemplarsEnd: len(b.Exemplars),
			})
		}
		b.Metadata = metadata
		var r duramenpb.PushResult
		require.NoError(t, i.Push(context.Background(), tenantID, &b, &r))
		require.Empty(t, r.Refused)
	}
	for _, n := range c.nodes {
		push(n.Ingester, func(e *entry) bool { return e.skip != n.zone && n.owns(e.lset) })
	}
	push(c.oracle, func(*entry) bool { return true })
}
