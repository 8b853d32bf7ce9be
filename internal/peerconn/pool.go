package peerconn

import (
	"context"
	"errors"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
)

// ErrClosed means that the pool is closed: the process stops.
var ErrClosed = errors.New("the connections to other processes are closed")

// Pool holds one connection to each address, dialed when it is first asked for. Safe for concurrent use.
type Pool struct{}

// New checks cfg and allocates. The pool connects to nobody yet.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Pool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Pool{}, nil
}

// Conn is a connection in use. It implements grpc.ClientConnInterface.
type Conn struct{ *grpc.ClientConn }

// Get returns the connection to address for one call: until Release, bytes are expected of the peer, and its silence means
// that it fails. The error is ErrClosed or says what is wrong with the address; a peer that is away is no error here.
func (p *Pool) Get(address string) (*Conn, error) { return nil, ErrClosed }

// Release ends what Get began. Call it once.
func (c *Conn) Release() {}

// Failing reports, without a call, that the peer could not be reached at the last try or has fallen silent. It is false for
// an address that nobody has asked yet.
func (p *Pool) Failing(address string) bool { return false }

// State says in a word how the connection is: none, idle, connecting, ready, or failing.
func (p *Pool) State(address string) string { return "none" }

// Reset has a failing connection tried at once, for the peer is said to be back.
func (p *Pool) Reset(address string) {}

// Keep closes connections to addresses for which keep is false and that nobody uses.
func (p *Pool) Keep(keep func(address string) bool) {}

// Close ends all connections. Calls that are open fail.
func (p *Pool) Close() error { return nil }

var _ = context.Background
