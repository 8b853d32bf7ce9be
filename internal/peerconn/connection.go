package peerconn

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/duramendb/duramen/internal/rpcframe"
)

const (
	// connectTimeout is far above a handshake between neighbours. A call waits for it when a peer's machine is gone.
	connectTimeout = 3 * time.Second
	// reconnectAfter bounds how long a peer that came back is still taken for away.
	reconnectAfter = time.Second
	// keepaliveTime and keepaliveTimeout find a peer that is gone while a stream is open and nothing is owed.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
	// maxFrame is far above any frame.
	maxFrame = 64 << 20
	// streamWindow is what a peer may send ahead of what a stream's reader takes. It is fixed: to find the best one gRPC
	// would send pings all the time. It is enough for 250 MB a second at a millisecond's distance.
	streamWindow = 256 << 10
	connWindow   = 4 << 20
	// ioBuffer holds what one system call reads or writes.
	ioBuffer = 64 << 10
	// checks and probes are how often, within the time of silence, a connection is looked at, and a silent peer is asked for
	// a sign of life.
	checks = 8
	probes = 3
	// methodProbe is a call that no server has: that it is unknown is the answer.
	methodProbe = "/duramen.Peer/Probe"
)

// connection is the only one to an address.
type connection struct {
	pool    *Pool
	address string
	client  *grpc.ClientConn
	cancel  context.CancelFunc

	users int // guarded by pool.mu

	owed      atomic.Int64 // how many things the peer owes
	heard     atomic.Int64 // when the last byte came, or the peer began to owe; nanoseconds since the Unix epoch
	failing   atomic.Bool
	suspected atomic.Bool // the peer is to be probed though it owes nothing
	probing   atomic.Bool

	mu        sync.Mutex
	transport net.Conn // the last one
	dials     int      // transports that were made
	given     int      // dials when a transport was given up for its silence
}

func (c *connection) dialOptions(creds credentials.TransportCredentials) []grpc.DialOption {
	retry := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectAfter}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(c.dial),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: connectTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rpcframe.Codec{}), grpc.MaxCallRecvMsgSize(maxFrame)),
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithReadBufferSize(ioBuffer),
		grpc.WithWriteBufferSize(ioBuffer),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(), // it would keep what was sent
		grpc.WithIdleTimeout(0),
	}
}

// dial makes the transport of a connection.
func (c *connection) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c.pool.metrics.connects.Inc()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.transport = &heardConn{conn, c}
	c.dials++
	return c.transport, nil
}

// heardConn notes when bytes come, and counts them.
type heardConn struct {
	net.Conn

	of *connection
}

// Read implements net.Conn.
func (h *heardConn) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	if n > 0 {
		h.of.hear()
		h.of.pool.metrics.received.Add(float64(n))
	}
	return n, err
}

// Write implements net.Conn.
func (h *heardConn) Write(p []byte) (int, error) {
	n, err := h.Conn.Write(p)
	h.of.pool.metrics.sent.Add(float64(n))
	return n, err
}

func (c *connection) hear() { c.heard.Store(time.Now().UnixNano()) }

func (c *connection) silentFor(now time.Time) time.Duration {
	return time.Duration(now.UnixNano() - c.heard.Load())
}

// watch keeps failing up to date until the connection is closed.
func (c *connection) watch(ctx context.Context) {
	silence := c.pool.cfg.SilenceTimeout
	last := time.Now()
	for ctx.Err() == nil {
		state := c.client.GetState()
		now := time.Now()
		if now.Sub(last) > silence/2 {
			c.hear() // It was this process that stood still: what the peer has sent meanwhile is not read yet.
		}
		last = now
		c.note(state)
		if state == connectivity.Ready {
			c.listen(ctx, now)
		}
		tick, cancel := context.WithTimeout(ctx, silence/checks)
		c.client.WaitForStateChange(tick, state)
		cancel()
	}
	c.setFailing(false, "")
}

// note draws from gRPC's state of the connection whether it fails. One that has failed does so until the next is made.
func (c *connection) note(state connectivity.State) {
	switch state {
	case connectivity.Ready:
		c.mu.Lock()
		anew := c.given < c.dials
		c.mu.Unlock()
		if anew {
			c.setFailing(false, "")
		}
	case connectivity.TransientFailure:
		c.setFailing(true, "it cannot be reached")
	case connectivity.Idle:
		if c.failing.Load() {
			c.client.Connect()
		}
	}
}

func (c *connection) setFailing(failing bool, why string) {
	if c.failing.Swap(failing) == failing {
		return
	}
	if failing {
		c.pool.metrics.failing.Inc()
		c.pool.log.Warn("peer fails", "address", c.address, "reason", why)
	} else {
		c.pool.metrics.failing.Dec()
		c.pool.log.Info("peer is no longer taken for failing", "address", c.address)
	}
}

// listen probes a peer that has been silent for a while, and gives the transport up when that brings no byte either: a new
// one finds the peer as soon as it is back, where the old one might wait for TCP's own timers.
func (c *connection) listen(ctx context.Context, now time.Time) {
	if c.suspected.Swap(false) {
		c.probe(ctx)
		return
	}
	if c.owed.Load() == 0 && !c.probing.Load() {
		return
	}
	silence := c.pool.cfg.SilenceTimeout
	switch silent := c.silentFor(now); {
	case silent >= silence:
		c.giveUp()
	case silent >= silence/probes:
		c.probe(ctx)
	}
}

func (c *connection) giveUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.given == c.dials {
		return // gRPC has not noticed yet
	}
	c.given = c.dials
	c.pool.metrics.silences.Inc()
	c.setFailing(true, "it is silent")
	_ = c.transport.Close() // its streams end with an error
}

// probe has the peer send some bytes. It costs a few dozen, and only where nothing came for a while.
func (c *connection) probe(ctx context.Context) {
	if c.probing.Swap(true) {
		return
	}
	if c.owed.Load() == 0 {
		c.hear() // it begins to owe now
	}
	c.pool.watching.Go(func() {
		defer c.probing.Store(false)
		// It may end only after the silence was seen.
		ctx, cancel := context.WithTimeout(ctx, 2*c.pool.cfg.SilenceTimeout)
		defer cancel()
		var request, answer rpcframe.Frame
		_ = c.client.Invoke(ctx, methodProbe, &request, &answer) // that it is unknown, as a rule
	})
}

// close ends the connection; watch ends by itself.
func (c *connection) close() {
	c.cancel()
	_ = c.client.Close() // its end is all that we want
}
