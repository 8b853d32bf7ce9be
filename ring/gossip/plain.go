package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/hashicorp/memberlist"
)

// plainTransport is memberlist's own, by TCP and by UDP without TLS, which knows members that speak TLS when it meets them:
// memberlist would take what they send for another cluster's.
type plainTransport struct {
	*memberlist.NetTransport

	reports interface {
		Refused(inbound bool, address string, err error)
	}
	streams chan net.Conn
	ended   chan struct{}
	passing sync.WaitGroup // pass, which Shutdown waits for
}

// errSpeaksTLS is what such a connection's Read returns.
var errSpeaksTLS = errors.New("the other side gossips with TLS and this member without: memberlist.tls.enabled differs")

func newPlainTransport(t *memberlist.NetTransport, adapter *logAdapter) *plainTransport {
	p := &plainTransport{NetTransport: t, reports: adapter, streams: make(chan net.Conn), ended: make(chan struct{})}
	p.passing.Go(p.pass)
	return p
}

// pass hands incoming streams on.
func (p *plainTransport) pass() {
	for {
		select {
		case conn := <-p.NetTransport.StreamCh():
			select {
			case p.streams <- &plainConn{Conn: conn, of: p, inbound: true}:
			case <-p.ended:
				_ = conn.Close()
				return
			}
		case <-p.ended:
			return
		}
	}
}

// StreamCh implements memberlist.Transport.
func (p *plainTransport) StreamCh() <-chan net.Conn { return p.streams }

// Shutdown implements memberlist.Transport.
func (p *plainTransport) Shutdown() error {
	err := p.NetTransport.Shutdown()
	close(p.ended)
	p.passing.Wait()
	return err
}

// Dial opens a stream to another member.
func (p *plainTransport) Dial(ctx context.Context, address string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &plainConn{Conn: conn, of: p}, nil
}

// The first bytes of a handshake, which a member that speaks TLS sends when it connects, and of the alert that it answers to
// who does not. No message of memberlist begins so: its types are below 16, but for labels, which begin with 244.
const (
	tlsHandshake = "\x16\x03"
	tlsAlert     = "\x15\x03"
)

// plainConn looks at the first bytes that come.
type plainConn struct {
	net.Conn

	of      *plainTransport
	inbound bool
	looked  bool
}

// Read implements net.Conn.
func (c *plainConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.looked || n == 0 {
		return n, err
	}
	c.looked = true
	if first := string(p[:min(n, len(tlsAlert))]); first == tlsHandshake || first == tlsAlert {
		c.of.reports.Refused(c.inbound, c.RemoteAddr().String(), errSpeaksTLS)
		return 0, fmt.Errorf("read from %s: %w", c.RemoteAddr(), errSpeaksTLS)
	}
	return n, err
}
