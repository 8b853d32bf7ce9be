package quorum

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/distributor"
	"github.com/duramendb/duramen/distributor/replicate"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/ingester"
	"github.com/duramendb/duramen/ingester/ingestrpc"
	"github.com/duramendb/duramen/internal/peerconn"
	"github.com/duramendb/duramen/internal/service"
	"github.com/duramendb/duramen/ring"
	"github.com/duramendb/duramen/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tenantID = "team"

func defaults(t testing.TB, cfg interface{ RegisterFlags(*flag.FlagSet) }) {
	fs := flag.NewFlagSet("defaults", flag.ContinueOnError)
	cfg.RegisterFlags(fs)
	require.NoError(t, fs.Parse(nil))
}

// node is an ingester with its server and a cable in front of it.
type node struct {
	t      testing.TB
	member ring.Member
	dir    string
	cable  *cable

	ingester *ingester.Ingester
	life     *service.Service
	server   *ingestrpc.Server
	grpc     *grpc.Server
	serving  sync.WaitGroup
}

// start opens the ingester in its folder, where it may have been before, and serves it behind the cable.
func (n *node) start() {
	log := slog.New(slog.DiscardHandler)
	bkt := bucket.NewInMemory()
	var cfg ingester.Config
	defaults(n.t, &cfg)
	cfg.Dir, cfg.MinFreeBytes = n.dir, 1
	values := tenant.DefaultValues()
	var err error
	n.ingester, err = ingester.New(cfg, bkt, manifest.NewOwner(bkt, time.Now, log, nil), tenant.StaticLimits(values), time.Now,
		log, prometheus.NewRegistry())
	require.NoError(n.t, err)
	n.life = n.ingester.Service()
	require.NoError(n.t, n.life.Start(context.Background()))
	var scfg ingestrpc.ServerConfig
	defaults(n.t, &scfg)
	n.server, err = ingestrpc.NewServer(scfg, n.ingester, nil, log, nil)
	require.NoError(n.t, err)
	n.grpc = grpc.NewServer(peerconn.ServerOptions(insecure.NewCredentials())...)
	n.server.Register(n.grpc)
	l, err := (&net.ListenConfig{}).Listen(n.t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(n.t, err)
	n.serving.Go(func() { _ = n.grpc.Serve(l) })
	n.cable.plug(l.Addr().String())
}

// stop ends the server, suddenly or not, and closes the ingester.
func (n *node) stop(suddenly bool) {
	if n.life == nil {
		return
	}
	n.cable.unplug()
	if suddenly {
		n.grpc.Stop()
	} else {
		n.server.Drain()
		n.grpc.GracefulStop()
	}
	n.serving.Wait()
	n.server.Wait()
	require.NoError(n.t, n.life.Stop())
	n.life = nil
}

// holds returns which samples the ingester has, by series.
func (n *node) holds() map[string]map[int64]bool {
	q, _, err := n.ingester.Querier(context.Background(), tenantID, duramenpb.View{Cut: math.MinInt64}, math.MinInt64,
		math.MaxInt64)
	require.NoError(n.t, err)
	defer q.Close()
	out := map[string]map[int64]bool{}
	set := q.Select(context.Background(), false, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	for set.Next() {
		at := map[int64]bool{}
		it := set.At().Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			at[it.AtT()] = true
		}
		require.NoError(n.t, it.Err())
		out[set.At().Labels().String()] = at
	}
	require.NoError(n.t, set.Err())
	return out
}

// cluster is ingesters in zones and a distributor that writes to them.
type cluster struct {
	t     testing.TB
	nodes []*node
	rings atomic.Pointer[ring.Ring]

	reg         *prometheus.Registry
	pool        *peerconn.Pool
	client      *ingestrpc.Client
	replicator  *replicate.Replicator
	distributor http.Handler
}

func newCluster(t testing.TB, change func(*replicate.Config, *ingestrpc.ClientConfig)) *cluster {
	c := &cluster{t: t, reg: prometheus.NewRegistry()}
	log := slog.New(slog.DiscardHandler)
	for _, zone := range []string{"a", "b", "c"} {
		c.add(zone, 0)
	}
	c.turn()
	var err error
	c.pool, err = peerconn.New(peerconn.Config{SilenceTimeout: time.Second}, log, nil)
	require.NoError(t, err)
	var cfg replicate.Config
	var ccfg ingestrpc.ClientConfig
	defaults(t, &cfg)
	defaults(t, &ccfg)
	if change != nil {
		change(&cfg, &ccfg)
	}
	c.client, err = ingestrpc.NewClient(ccfg, c.pool, log, c.reg)
	require.NoError(t, err)
	limits := tenant.StaticLimits(tenant.DefaultValues())
	c.replicator, err = replicate.New(cfg, c, c, limits, time.Now, log, c.reg)
	require.NoError(t, err)
	var dcfg distributor.Config
	defaults(t, &dcfg)
	d, err := distributor.New(dcfg, c.replicator, limits, log, c.reg)
	require.NoError(t, err)
	c.distributor = tenant.Middleware(true, d.Handler())
	t.Cleanup(c.close)
	return c
}

func (c *cluster) close() {
	for _, n := range c.nodes {
		n.cable.hang(false)
	}
	require.NoError(c.t, c.replicator.Close())
	require.NoError(c.t, c.client.Close())
	require.NoError(c.t, c.pool.Close())
	for _, n := range c.nodes {
		n.stop(false)
		n.cable.close()
	}
}

// Ring and Peer implement what the Replicator asks for.
func (c *cluster) Ring() *ring.Ring                  { return c.rings.Load() }
func (c *cluster) Peer(m ring.Member) replicate.Peer { return c.client.Peer(m.Address) }

func (c *cluster) add(zone string, ordinal int) *node {
	id := fmt.Sprintf("ingester-%s-%d", zone, ordinal)
	n := &node{t: c.t, dir: filepath.Join(c.t.TempDir(), id), cable: newCable(c.t)}
	n.member = ring.Member{
		ID: id, Roles: []ring.Role{ring.RoleIngester}, Zone: zone, Ordinal: ordinal, StorageID: id,
		Address: n.cable.address(), State: ring.Active, Epoch: 1,
	}
	n.start()
	c.nodes = append(c.nodes, n)
	return n
}

// turn makes a new ring of the nodes.
func (c *cluster) turn() {
	var entries []ring.Entry
	for _, n := range c.nodes {
		entries = append(entries, ring.MemberEntry(n.member))
	}
	c.rings.Store(ring.New(ring.Config{ReplicationFactor: 3, HeartbeatTimeout: time.Hour}, entries, time.Now()))
}

func (c *cluster) write(w *prompb.WriteRequest) *httptest.ResponseRecorder {
	body, err := w.Marshal()
	require.NoError(c.t, err)
	req := httptest.NewRequest(http.MethodPost, "/api/v1/push", bytes.NewReader(snappy.Encode(nil, body)))
	req.Header.Set("X-Scope-OrgID", tenantID)
	answer := httptest.NewRecorder()
	c.distributor.ServeHTTP(answer, req)
	return answer
}

// gauge sums the series of a metric.
func (c *cluster) gauge(name string) (sum float64) {
	families, err := c.reg.Gather()
	require.NoError(c.t, err)
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// cable is a TCP proxy that can be unplugged, and can hang: then it takes nothing and passes nothing on.
type cable struct {
	t        testing.TB
	listener net.Listener
	working  sync.WaitGroup

	mu    sync.Mutex
	to    string // "" while unplugged
	conns map[net.Conn]bool
	hung  chan struct{} // closed when it hangs no more; nil while it does not
}

func newCable(t testing.TB) *cable {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &cable{t: t, listener: l, conns: map[net.Conn]bool{}}
	c.working.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.working.Go(func() { c.connect(conn) })
		}
	})
	return c
}

func (c *cable) address() string { return c.listener.Addr().String() }

func (c *cable) plug(to string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.to = to
}

// unplug breaks all connections and refuses others.
func (c *cable) unplug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.to = ""
	for conn := range c.conns {
		conn.Close()
	}
}

func (c *cable) hang(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case on && c.hung == nil:
		c.hung = make(chan struct{})
	case !on && c.hung != nil:
		close(c.hung)
		c.hung = nil
	}
}

func (c *cable) close() {
	c.hang(false)
	c.unplug()
	c.listener.Close()
	c.working.Wait()
}

func (c *cable) keep(conn net.Conn) (to string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.to != "" {
		c.conns[conn] = true
	}
	return c.to
}

func (c *cable) connect(in net.Conn) {
	defer in.Close()
	to := c.keep(in)
	if to == "" {
		return
	}
	out, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	c.keep(out)
	var both sync.WaitGroup
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(writer{c, to}, from)
		to.Close()
		from.Close()
	}
	both.Go(func() { pass(out, in) })
	both.Go(func() { pass(in, out) })
	both.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, in)
	delete(c.conns, out)
}

// writer writes unless the cable hangs.
type writer struct {
	cable *cable
	to    net.Conn
}

func (w writer) Write(b []byte) (int, error) {
	w.cable.mu.Lock()
	hung := w.cable.hung
	w.cable.mu.Unlock()
	if hung != nil {
		<-hung
	}
	return w.to.Write(b)
}
