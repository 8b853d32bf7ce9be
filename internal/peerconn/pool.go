package peerconn

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
)

// ErrClosed means that the pool is closed: the process stops.
var ErrClosed = errors.New("the connections to other processes are closed")

// Pool holds one connection to each address, dialed when a call needs it. Safe for concurrent use.
type Pool struct {
	cfg     Config
	creds   credentials.TransportCredentials
	log     *slog.Logger
	metrics *metrics

	watching sync.WaitGroup // watch of each connection, and what it begins; Close waits

	mu     sync.Mutex
	open   map[string]*connection
	closed bool
}

// New checks cfg, reads the files of TLS and allocates. The pool connects to nobody yet.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Pool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	creds, err := clientCredentials(cfg.TLS, log)
	if err != nil {
		return nil, err
	}
	return &Pool{
		cfg: cfg, creds: creds, log: log, metrics: newMetrics(reg), open: map[string]*connection{},
	}, nil
}

// Conn is a connection in use. It implements grpc.ClientConnInterface.
type Conn struct {
	*grpc.ClientConn

	of      *connection
	release func()
}

// Get returns the connection to address for one call: until Release, bytes are expected of the peer, and its silence means
// that it fails. The error is ErrClosed or says what is wrong with the address; a peer that is away is no error here.
func (p *Pool) Get(address string) (*Conn, error) {
	c, err := p.Open(address)
	if err != nil {
		return nil, err
	}
	c.Expect()
	c.release = func() {
		c.Answered()
		p.giveBack(c.of)
	}
	return c, nil
}

// Open is Get for many calls: whoever makes them says with Expect and Answered when the peer owes something.
func (p *Pool) Open(address string) (*Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	c, ok := p.open[address]
	if !ok {
		var err error
		if c, err = p.connect(address); err != nil {
			return nil, err
		}
		p.open[address] = c
	}
	c.users++
	return &Conn{ClientConn: c.client, of: c, release: func() { p.giveBack(c) }}, nil
}

// connect begins a connection and its watch.
func (p *Pool) connect(address string) (*connection, error) {
	c := &connection{pool: p, address: address}
	var err error
	// The dialer looks the name up each time: what a name means may have changed since a peer went away.
	if c.client, err = grpc.NewClient("passthrough:///"+address, c.dialOptions(p.creds)...); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	p.watching.Go(func() { c.watch(ctx) })
	return c, nil
}

func (p *Pool) giveBack(c *connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.users--
}

// Release ends what Get or Open began. Call it once.
func (c *Conn) Release() { c.release() }

// Expect says that the peer owes bytes from now on, until Answered is called as often.
func (c *Conn) Expect() {
	if c.of.owed.Add(1) == 1 {
		c.of.hear()
	}
}

// Answered takes an Expect back.
func (c *Conn) Answered() { c.of.owed.Add(-1) }

// Failing is Pool.Failing for this connection.
func (c *Conn) Failing() bool { return c.of.failing.Load() }

// Failing reports, without a call, that the peer could not be reached at the last try or has fallen silent. It is false for
// an address that nobody has asked yet.
func (p *Pool) Failing(address string) bool {
	c := p.find(address)
	return c != nil && c.failing.Load()
}

// State says in a word how the connection is: none, idle, connecting, ready, or failing.
func (p *Pool) State(address string) string {
	c := p.find(address)
	switch {
	case c == nil:
		return "none"
	case c.failing.Load():
		return "failing"
	}
	switch c.client.GetState() {
	case connectivity.Idle:
		return "idle"
	case connectivity.Connecting:
		return "connecting"
	case connectivity.Ready:
		return "ready"
	default:
		return "failing"
	}
}

func (p *Pool) find(address string) *connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open[address]
}

// Reset has a failing connection tried at once, for the peer is said to be back, and one that seems well looked after.
func (p *Pool) Reset(address string) {
	if c := p.find(address); c != nil {
		c.client.ResetConnectBackoff()
		c.suspected.Store(true)
	}
}

// Keep closes connections to addresses for which keep is false and that nobody uses. keep must not call the pool.
func (p *Pool) Keep(keep func(address string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for address, c := range p.open {
		if c.users == 0 && !keep(address) {
			c.close()
			delete(p.open, address)
		}
	}
}

// Close ends all connections and waits for their watches. Calls that are open fail.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	for _, c := range p.open {
		c.close()
	}
	clear(p.open)
	p.mu.Unlock()
	p.watching.Wait()
	return nil
}
