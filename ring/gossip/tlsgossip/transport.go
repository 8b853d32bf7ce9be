package tlsgossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/duramendb/duramen/internal/tlsfiles"
)

// ErrClosed means that the transport is shut down: the process stops.
var ErrClosed = errors.New("gossip is shut down")

// Reports is told what comes to nothing. Its methods are called by many at a time and must not block.
type Reports interface {
	// Refused says that a connection was not made, or not taken, because the two sides do not agree on TLS.
	Refused(inbound bool, address string, err error)
	// Malformed says that a member sent what is no packet.
	Malformed(address string, err error)
	// Unsent says that so many packets for a peer were dropped: it is away, or takes them too slowly.
	Unsent(address string, packets int)
	// Overloaded says that a connection was not taken because too many others are being taken.
	Overloaded(address string)
}

// Transport is a memberlist.NodeAwareTransport. Safe for concurrent use.
type Transport struct {
	server, client *tlsfiles.Files
	name           string // that certificates of others must have; "" for the host of the address, and any that connects
	reports        Reports
	listener       *net.TCPListener
	packets        chan *memberlist.Packet
	streams        chan net.Conn

	// closing is closed when Shutdown begins, and life ends when it gives up what is still underway. working are the
	// goroutines that it waits for.
	closing chan struct{}
	life    context.Context //nolint:containedctx // memberlist's interface has none
	end     context.CancelFunc
	working sync.WaitGroup
	// handshakes bounds the connections whose other side has not shown a certificate yet.
	handshakes chan struct{}
	// connecting and flushing are connectTimeout and flushTimeout but in tests, on machines that are busy.
	connecting, flushing time.Duration

	mu      sync.Mutex
	closed  bool
	senders map[string]*sender
	inbound map[net.Conn]struct{}
}

var _ memberlist.NodeAwareTransport = (*Transport)(nil)

// maxHandshakes bounds what strangers can make a member hold: a few KiB each, for handshakeTimeout.
const maxHandshakes = 1024

// Files are the TLS of a member, which is server and client.
type Files struct {
	Server, Client *tlsfiles.Files
	// Name is what the certificates of all others must have, of those that connect, too. "" means: of those that are
	// connected to, the host of their address.
	Name string
}

// Listen listens on IP:port, where port 0 is one of the system's choice, and takes connections until Shutdown.
func Listen(ip net.IP, port int, files Files, reports Reports) (*Transport, error) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: ip, Port: port})
	if err != nil {
		return nil, err
	}
	life, end := context.WithCancel(context.Background())
	t := &Transport{
		server: files.Server, client: files.Client, name: files.Name, reports: reports, listener: l,
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), closing: make(chan struct{}),
		life: life, end: end,
		connecting: connectTimeout, flushing: flushTimeout,
		handshakes: make(chan struct{}, maxHandshakes), senders: map[string]*sender{}, inbound: map[net.Conn]struct{}{},
	}
	t.working.Go(t.accept)
	return t, nil
}

// Port is the port that is listened on.
func (t *Transport) Port() int { return t.listener.Addr().(*net.TCPAddr).Port } //nolint:forcetypeassert // it is one

// FinalAdvertiseAddr implements memberlist.Transport. The caller always knows the address.
func (t *Transport) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	parsed := net.ParseIP(ip)
	if parsed == nil {
		return nil, 0, fmt.Errorf("advertised address %q is no IP address", ip)
	}
	return parsed, port, nil
}

// PacketCh implements memberlist.Transport.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// WriteTo implements memberlist.Transport. It waits for nobody: the packet is sent later, or dropped.
func (t *Transport) WriteTo(packet []byte, address string) (time.Time, error) {
	if len(packet) == 0 || len(packet) > maxPayload {
		return time.Time{}, fmt.Errorf("packet of %d bytes for %s: there may be 1 to %d", len(packet), address, maxPayload)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return time.Time{}, ErrClosed
	}
	s, ok := t.senders[address]
	if !ok {
		if len(t.senders) >= maxSenders {
			t.reports.Unsent(address, 1)
			return time.Now(), nil
		}
		s = newSender(t, address)
		t.senders[address] = s
		t.working.Go(s.run)
	}
	select {
	case s.queue <- bytes.Clone(packet):
	default:
		t.reports.Unsent(address, 1)
	}
	return time.Now(), nil
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *Transport) WriteToAddress(packet []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(packet, a.Addr)
}

// Dial opens a stream to another member. ctx bounds the making of it, not its life.
func (t *Transport) Dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := t.connect(ctx, address, protocolStream)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// DialTimeout implements memberlist.Transport.
func (t *Transport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.life, timeout)
	defer cancel()
	return t.Dial(ctx, address)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *Transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// flushTimeout is how long Shutdown lets packets go out that were written before: the last of them say goodbye.
const flushTimeout = 500 * time.Millisecond

// Shutdown implements memberlist.Transport. It returns when nothing of the transport runs any more; streams that were handed
// out belong to their owners.
func (t *Transport) Shutdown() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		t.working.Wait()
		return nil
	}
	t.closed = true
	close(t.closing)
	for _, s := range t.senders {
		close(s.queue)
	}
	for conn := range t.inbound {
		_ = conn.Close()
	}
	t.mu.Unlock()
	err := t.listener.Close()
	timer := time.AfterFunc(t.flushing, t.end)
	defer timer.Stop()
	t.working.Wait()
	t.end()
	return err
}
