package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-sockaddr"
	"github.com/hashicorp/memberlist"
)

// endpoint is where this member is reached.
type endpoint struct {
	transport memberlist.Transport
	interrupt func() // gives up outgoing connections; nil when there is no need
	// What others are told.
	ip   net.IP
	port int
	// bound is the port that is listened on, onLoopback says that it is on loopback, too.
	bound      int
	onLoopback bool
}

// listenNetwork opens TCP, and UDP without TLS, on the address in the settings.
func (n *Node) listenNetwork(logger *logAdapter) (endpoint, error) {
	host, port, err := splitAddress(n.cfg.BindAddress)
	if err != nil {
		return endpoint{}, err
	}
	bind := host
	if bind == "" {
		bind = "0.0.0.0"
		if !hasIPv4() {
			bind = "::"
		}
	}
	listen := n.listenPlain
	if n.cfg.TLS.Enabled {
		listen = n.listenTLS
	}
	wire, bound, err := listen(bind, port, logger)
	if err != nil {
		return endpoint{}, fmt.Errorf("listen for gossip on %s: %w", n.cfg.BindAddress, err)
	}
	wire.interrupt()
	boundIP := net.ParseIP(bind)
	at := endpoint{
		transport: wire, interrupt: wire.interrupt, port: bound, bound: bound,
		onLoopback: boundIP.IsUnspecified() || boundIP.IsLoopback(),
	}
	if at.ip, err = advertisedIP(n.cfg.AdvertiseAddress, bind); err != nil {
		return endpoint{}, errors.Join(err, wire.Shutdown())
	}
	if _, text, err := net.SplitHostPort(n.cfg.AdvertiseAddress); err == nil {
		at.port, _ = strconv.Atoi(text) // Validate has read it
	}
	return at, nil
}

// listenPlain opens TCP and UDP on an IP address.
func (n *Node) listenPlain(bind string, port int, logger *logAdapter) (*network, int, error) {
	t, err := listenRetry(&memberlist.NetTransportConfig{
		BindAddrs: []string{bind}, BindPort: port, Logger: logger.logger(),
	})
	if err != nil {
		return nil, 0, err
	}
	plain := newPlainTransport(t, logger)
	return &network{NodeAwareTransport: plain, dial: plain.Dial}, t.GetAutoBindPort(), nil
}

// network is a transport whose outgoing connections can be given up all at once: a member that does not answer must not hold
// up a stop.
type network struct {
	memberlist.NodeAwareTransport

	dial func(ctx context.Context, address string) (net.Conn, error)

	mtx    sync.Mutex
	life   context.Context //nolint:containedctx // memberlist's interface has none
	cancel context.CancelFunc
}

var _ memberlist.NodeAwareTransport = (*network)(nil)

// interrupt gives up the connections that there are. Later ones are not concerned.
func (t *network) interrupt() {
	t.mtx.Lock()
	defer t.mtx.Unlock()
	if t.cancel != nil {
		t.cancel()
	}
	t.life, t.cancel = context.WithCancel(context.Background())
}

// DialTimeout implements memberlist.Transport.
func (t *network) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	t.mtx.Lock()
	life := t.life
	t.mtx.Unlock()
	ctx, cancel := context.WithTimeout(life, timeout)
	defer cancel()
	conn, err := t.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: conn}
	c.release = context.AfterFunc(life, func() { _ = conn.Close() })
	return c, nil
}

// connection is one that interrupt may close.
type connection struct {
	net.Conn

	release func() bool
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.release()
	return c.Conn.Close()
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *network) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// listenRetry tries a few times when the port is the system's choice: it is free for TCP, and UDP may have it already.
func listenRetry(c *memberlist.NetTransportConfig) (*memberlist.NetTransport, error) {
	tries := 1
	if c.BindPort == 0 {
		tries = 10
	}
	var err error
	for range tries {
		var t *memberlist.NetTransport
		if t, err = memberlist.NewNetTransport(c); err == nil {
			return t, nil
		}
	}
	return nil, err
}

// advertisedIP is the address that others are told: the configured one, the one that is bound, or, bound to all, the
// first private one. A machine without any has loopback, on which processes of one machine meet.
func advertisedIP(configured, bind string) (net.IP, error) {
	if configured != "" {
		host, _, err := splitAddress(configured)
		if err != nil {
			return nil, err
		}
		return resolveOne(host)
	}
	ip := net.ParseIP(bind)
	if ip == nil {
		return nil, fmt.Errorf("bind address %q is no IP address", bind)
	}
	if !ip.IsUnspecified() {
		return shortIP(ip), nil
	}
	private, err := sockaddr.GetPrivateIP()
	if err == nil && private != "" {
		return shortIP(net.ParseIP(private)), nil
	}
	if public, err := sockaddr.GetPublicIP(); err == nil && public != "" {
		return nil, fmt.Errorf("this machine has the public address %s and no private one: say with "+
			"-memberlist.advertise-address where other members reach it", public)
	}
	return net.IPv4(127, 0, 0, 1).To4(), nil
}

// resolveOne returns an address of a name, an IPv4 one when there is one.
func resolveOne(host string) (net.IP, error) {
	if ip := net.ParseIP(host); ip != nil {
		return shortIP(ip), nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("resolve advertised address: %w", err)
	}
	for _, ip := range ips {
		if ip.To4() != nil {
			return ip.To4(), nil
		}
	}
	if len(ips) == 0 {
		return nil, fmt.Errorf("resolve advertised address: %s has no address", host)
	}
	return ips[0], nil
}

// resolveTimeout bounds one look-up of a name.
const resolveTimeout = 2 * time.Second

func shortIP(ip net.IP) net.IP {
	if v4 := ip.To4(); v4 != nil {
		return v4
	}
	return ip
}

func hasIPv4() bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
			return true
		}
	}
	return false
}

// withHost fills in the host of a listener's address when it stands for all addresses.
func withHost(address, host string) string {
	h, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(h); h == "" || ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort(host, port)
	}
	return address
}
