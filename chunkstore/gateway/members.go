package gateway

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/duramendb/duramen/internal/rpcframe"
)

// Member is a store-gateway.
type Member struct {
	// ID is for ever the same for the same caches; it decides which blocks are asked of it.
	ID string
	// Address is host:port.
	Address string
}

// String returns how errors name the member.
func (m Member) String() string {
	if m.ID == m.Address {
		return m.ID
	}
	return fmt.Sprintf("%s (%s)", m.ID, m.Address)
}

// Members says which store-gateways there are at the moment. The list must not be changed afterwards.
type Members interface{ StoreGateways() []Member }

// Static is a list that does not change: each address is its own ID.
type Static []string

// StoreGateways implements Members.
func (s Static) StoreGateways() []Member {
	members := make([]Member, len(s))
	for i, address := range s {
		members[i] = Member{ID: address, Address: address}
	}
	return members
}

const (
	// connectTimeout is far above a handshake between neighbours. A query waits for it when a member's machine is gone.
	connectTimeout = 3 * time.Second
	// reconnectAfter bounds how long a member that came back is still taken for away.
	reconnectAfter = time.Second
	// keepaliveTime and keepaliveTimeout find a member that hangs, during a call.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
	// maxFrame is far above a frame: one chunk or one series more than frameBytes.
	maxFrame = 64 << 20
)

// connections holds one connection to each address. It dials when a call needs it.
type connections struct {
	mu     sync.Mutex
	open   map[string]*connection
	closed bool
}

type connection struct {
	*grpc.ClientConn

	users int
}

var errClosed = errors.New("the client of the store-gateways is closed")

// get returns a connection to address, and the function to call when it is used no more.
func (c *connections) get(address string, options []grpc.DialOption) (*grpc.ClientConn, func(), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, errClosed
	}
	conn, ok := c.open[address]
	if !ok {
		dialed, err := grpc.NewClient(address, append(dialOptions(), options...)...)
		if err != nil {
			return nil, nil, err
		}
		conn = &connection{ClientConn: dialed}
		c.open[address] = conn
	}
	conn.users++
	return conn.ClientConn, sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		conn.users--
	}), nil
}

// state says in a word how the connection to address is.
func (c *connections) state(address string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn, ok := c.open[address]
	if !ok {
		return "none"
	}
	switch s := conn.GetState(); s {
	case connectivity.TransientFailure:
		return "failing"
	default:
		return strings.ToLower(s.String())
	}
}

func dialOptions() []grpc.DialOption {
	retry := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectAfter}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: connectTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rpcframe.Codec{}), grpc.MaxCallRecvMsgSize(maxFrame)),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
	}
}

// prune closes the connections to those who are members no more and whom nobody asks at the moment.
func (c *connections) prune(members []Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for address, conn := range c.open {
		known := slices.ContainsFunc(members, func(m Member) bool { return m.Address == address })
		if !known && conn.users == 0 {
			_ = conn.Close() // its end is all that we want
			delete(c.open, address)
		}
	}
}

func (c *connections) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, conn := range c.open {
		errs = append(errs, conn.Close())
	}
	clear(c.open)
	c.closed = true
	return errors.Join(errs...)
}
