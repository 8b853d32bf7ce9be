package faultproxy

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Cable passes the bytes of TCP connections on, and can be silent as the network before a host without power: connections
// stay, new ones are taken, and no byte passes. It is safe for concurrent use.
type Cable struct {
	listener net.Listener
	working  sync.WaitGroup

	mu     sync.Mutex
	moved  sync.Cond // silent, closed or conns changed
	target string
	silent bool
	closed bool
	conns  map[net.Conn]struct{}
	passed int64
}

// StartCable starts a cable to target, a host:port. It ends with the test.
func StartCable(t testing.TB, target string) *Cable {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &Cable{listener: l, target: target, conns: map[net.Conn]struct{}{}}
	c.moved.L = &c.mu
	c.working.Go(c.accept)
	t.Cleanup(func() {
		_ = l.Close()
		c.mu.Lock()
		c.closed = true
		c.cut()
		c.moved.Broadcast()
		c.mu.Unlock()
		c.working.Wait()
	})
	return c
}

// Address is the cable's own host:port.
func (c *Cable) Address() string { return c.listener.Addr().String() }

// Passed is how many bytes went through, both ways together.
func (c *Cable) Passed() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.passed
}

// Lead has new connections go to another target.
func (c *Cable) Lead(target string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.target = target
}

// Silence holds all bytes back until Heal. Nobody is told.
func (c *Cable) Silence() { c.setSilent(true) }

// Heal lets the bytes that were held back and all others pass.
func (c *Cable) Heal() { c.setSilent(false) }

func (c *Cable) setSilent(silent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent = silent
	c.moved.Broadcast()
}

// Cut breaks the connections that there are.
func (c *Cable) Cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut()
}

func (c *Cable) cut() {
	for conn := range c.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
	clear(c.conns)
}

// Connections is how many there are, each counted at both ends.
func (c *Cable) Connections() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.conns)
}

func (c *Cable) accept() {
	for {
		near, err := c.listener.Accept()
		if err != nil {
			return
		}
		c.working.Go(func() { c.join(near) })
	}
}

func (c *Cable) join(near net.Conn) {
	defer func() { _ = near.Close() }()
	if !c.wait(near) {
		return
	}
	c.mu.Lock()
	target := c.target
	c.mu.Unlock()
	far, err := new(net.Dialer).DialContext(context.Background(), "tcp", target) // on loopback: at once
	if err != nil {
		return
	}
	defer func() { _ = far.Close() }()
	if !c.wait(far) {
		return
	}
	var ways sync.WaitGroup
	ways.Go(func() { c.pass(near, far) })
	ways.Go(func() { c.pass(far, near) })
	ways.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, near)
	delete(c.conns, far)
}

// wait adds conn, when it is not nil, and returns when bytes may pass; false when they never will.
func (c *Cable) wait(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn != nil && !c.closed {
		c.conns[conn] = struct{}{}
	}
	for c.silent && !c.closed {
		c.moved.Wait()
	}
	return !c.closed
}

// pass copies until one end is gone, and then ends the other.
func (c *Cable) pass(to, from net.Conn) {
	defer func() { _ = to.Close() }()
	defer func() { _ = from.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil || !c.wait(nil) {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
		c.mu.Lock()
		c.passed += int64(n)
		c.mu.Unlock()
	}
}
