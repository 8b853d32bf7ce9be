package ingestrpc

import (
	"context"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/peerconn"
	"github.com/duramendb/duramen/internal/tracing"
)

const (
	// lanes are the streams to a peer. A tenant's sections take one of them, so that they arrive in order.
	lanes = 2
	// sweepEvery is how exact deadlines are kept.
	sweepEvery = 50 * time.Millisecond
)

// Client sends sections to ingesters by their addresses. Safe for concurrent use.
type Client struct {
	cfg     ClientConfig
	conns   *peerconn.Pool
	log     *slog.Logger
	metrics *clientMetrics
	seed    maphash.Seed

	working  sync.WaitGroup // lanes of all peers, and sweep; Close waits
	inflight atomic.Int64   // sections without an answer
	busy     chan struct{}  // holds one when inflight rose from zero
	stop     chan struct{}

	mu     sync.Mutex
	peers  map[string]*Peer
	swept  bool // sweep runs
	closed bool
}

// NewClient returns a client over the connections of conns, which it does not close. It starts nothing.
func NewClient(cfg ClientConfig, conns *peerconn.Pool, log *slog.Logger, reg prometheus.Registerer) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Client{
		cfg: cfg, conns: conns, log: log, metrics: newClientMetrics(reg), seed: maphash.MakeSeed(),
		busy: make(chan struct{}, 1), stop: make(chan struct{}), peers: map[string]*Peer{},
	}, nil
}

// Peer returns the peer at address: the same one until Keep forgets it.
func (c *Client) Peer(address string) *Peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.peers[address]; p != nil {
		return p
	}
	p := newPeer(c, address)
	if c.closed {
		p.broken = unreached(address, errClientClosed)
		return p
	}
	if p.conn, p.broken = c.conns.Open(address); p.broken != nil {
		p.broken = unreached(address, p.broken)
	}
	if !c.swept {
		c.swept = true
		c.working.Go(c.sweep)
	}
	c.peers[address] = p
	return p
}

// Keep ends the streams to addresses for which keep is false; sections without an answer fail. keep must not call the
// client.
func (c *Client) Keep(keep func(address string) bool) {
	for _, p := range c.remove(keep) {
		p.end()
	}
}

func (c *Client) remove(keep func(address string) bool) (gone []*Peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for address, p := range c.peers {
		if !keep(address) {
			gone = append(gone, p)
			delete(c.peers, address)
		}
	}
	return gone
}

// Close ends all streams and waits: every section that was sent has had its answer then, at last Unavailable. Sections that
// are sent later are refused.
func (c *Client) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.stop)
	}
	c.mu.Unlock()
	c.Keep(func(string) bool { return false })
	c.working.Wait()
	return nil
}

// sweep fails sections whose deadline has passed.
func (c *Client) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if c.inflight.Load() == 0 {
			select {
			case <-c.busy:
			case <-c.stop:
				return
			}
		}
		select {
		case now := <-tick.C:
			for _, p := range c.list() {
				for i := range p.lanes {
					p.lanes[i].expire(now)
				}
			}
		case <-c.stop:
			return
		}
	}
}

func (c *Client) list() []*Peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*Peer, 0, len(c.peers))
	for _, p := range c.peers {
		list = append(list, p)
	}
	return list
}

// Peer is an ingester in another process.
type Peer struct {
	client  *Client
	address string
	conn    *peerconn.Conn
	broken  error // why there is no conn
	release func()
	ended   atomic.Bool

	inflight atomic.Int64 // bytes of sections without an answer
	lanes    [lanes]lane
}

func newPeer(c *Client, address string) *Peer {
	p := &Peer{client: c, address: address}
	p.release = sync.OnceFunc(func() {
		if p.conn != nil {
			p.conn.Release()
		}
	})
	for i := range p.lanes {
		p.lanes[i].peer = p
		p.lanes[i].wake = make(chan struct{}, 1)
	}
	return p
}

// Send sends a section of tenantID, which a duramenpb.SectionEncoder wrote for that tenant, and calls done once with the
// ingester's verdict or an error: maybe before Send returns, else from a goroutine that other answers wait for. done may
// send. The verdict is valid in done only. The section belongs to the peer until done is called.
//
// Send never waits. It refuses at once with Unavailable when the peer fails, when more bytes are in flight than the cap, or
// when ctx is over. Later only the deadline of ctx counts: when it passes, done is called with an error, and whether the
// section is stored is unknown. Errors of the ingester have its kind; those of the way are Unavailable. A section that is
// larger than duramenpb.MaxSectionBytes is TooLarge.
func (p *Peer) Send(ctx context.Context, tenantID string, section []byte, done func(*duramenpb.PushResult, error)) {
	if p.ended.Load() && p.broken == nil {
		if again := p.client.Peer(p.address); again != p { // it was forgotten meanwhile
			again.Send(ctx, tenantID, section, done)
			return
		}
	}
	m := p.client.metrics
	m.sections.Inc()
	size := int64(len(section))
	refuse := func(reason string, err error) {
		m.failed.WithLabelValues(reason).Inc()
		done(nil, unreached(p.address, err))
	}
	switch {
	case p.broken != nil:
		refuse(failedAway, p.broken)
		return
	case ctx.Err() != nil:
		refuse(failedLate, context.Cause(ctx))
		return
	case p.conn.Failing():
		refuse(failedAway, errAway)
		return
	case size > duramenpb.MaxSectionBytes:
		m.failed.WithLabelValues(failedFull).Inc()
		done(nil, errkind.New(errkind.TooLarge, "a section of %d bytes is larger than %d", size, duramenpb.MaxSectionBytes))
		return
	case p.inflight.Add(size) > int64(p.client.cfg.MaxInflightBytes):
		p.inflight.Add(-size)
		refuse(failedFull, errFull)
		return
	}
	m.inflight.Add(float64(size))
	p.conn.Expect()
	it := &item{section: section, done: done, size: size, span: tracing.Current(ctx)}
	it.deadline, _ = ctx.Deadline()
	if p.client.inflight.Add(1) == 1 {
		select {
		case p.client.busy <- struct{}{}:
		default:
		}
	}
	lane := &p.lanes[maphash.String(p.client.seed, tenantID)%lanes]
	if !lane.put(it) {
		p.finish(it, nil, errClientClosed, failedClosed)
	}
}

// Failing reports, without a call, that sections would be refused for the peer's sake.
func (p *Peer) Failing() bool { return p.broken != nil || p.conn.Failing() }

// finish gives an item its answer. Whoever calls has taken it out of its lane.
func (p *Peer) finish(it *item, r *duramenpb.PushResult, err error, reason string) {
	c := p.client
	c.inflight.Add(-1)
	p.inflight.Add(-it.size)
	p.conn.Answered()
	c.metrics.inflight.Sub(float64(it.size))
	switch {
	case err == nil:
		c.metrics.stored.Inc()
	case reason == failedRefused:
		c.metrics.failed.WithLabelValues(reason).Inc()
	default:
		c.metrics.failed.WithLabelValues(reason).Inc()
		err = unreached(p.address, err)
	}
	it.done(r, err)
}

// end ends the lanes; it does not wait for them.
func (p *Peer) end() {
	p.ended.Store(true)
	for i := range p.lanes {
		p.lanes[i].end()
	}
	p.release()
}
