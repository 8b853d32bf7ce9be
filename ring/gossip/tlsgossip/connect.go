package tlsgossip

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What the two sides of a connection agree on during the handshake. A stranger, such as a browser, knows neither.
const (
	protocolPackets = "duramen-gossip-packets/1"
	protocolStream  = "duramen-gossip-stream/1"
)

const (
	// handshakeTimeout is far above a handshake between neighbours.
	handshakeTimeout = 5 * time.Second
	// silenceTimeout is how long the kernel waits for a peer to confirm what it was sent. Without it a connection to a host
	// that has vanished would swallow packets for a quarter of an hour.
	silenceTimeout = 5 * time.Second
	// welcome is what the accepting side sends when it has accepted. With TLS 1.3 the connecting side is done before its
	// certificate was looked at.
	welcome = 'w'
)

// connect makes a connection for one protocol. When it returns, the peer has accepted this member's certificate.
func (t *Transport) connect(ctx context.Context, address, protocol string) (*tls.Conn, error) {
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silenceTimeout.Milliseconds()))
		})
	}}
	plain, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	config := t.client.Current().Clone()
	config.NextProtos = []string{protocol}
	if config.ServerName = t.name; t.name == "" {
		if config.ServerName, _, err = net.SplitHostPort(address); err != nil {
			return nil, errors.Join(err, plain.Close())
		}
	}
	conn := tls.Client(plain, config)
	if err := greet(ctx, conn); err != nil {
		_ = plain.Close()
		if ctx.Err() == nil && !isTimeout(err) {
			t.reports.Refused(false, address, err)
		}
		return nil, fmt.Errorf("TLS to %s: %w", address, err)
	}
	return conn, nil
}

// greet carries out the handshake and waits for the welcome.
func greet(ctx context.Context, conn *tls.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.HandshakeContext(ctx); err != nil {
		return explain(err)
	}
	if conn.ConnectionState().NegotiatedProtocol == "" {
		return errors.New("the other side speaks TLS, but no gossip")
	}
	var first [1]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		return explain(err)
	}
	if first[0] != welcome {
		return errors.New("the other side speaks TLS, but no gossip")
	}
	if !stop() {
		return ctx.Err()
	}
	return nil
}

// explain adds what TLS does not say: whose fault it probably is.
func explain(err error) error {
	var record tls.RecordHeaderError
	var remote *net.OpError
	switch {
	case errors.As(err, &record):
		return fmt.Errorf("the other side gossips without TLS: %w", err)
	case errors.As(err, &remote) && remote.Op == "remote error":
		return fmt.Errorf("the other side refuses this member's certificate, or speaks another TLS: %w", err)
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("the other side closed the connection, as one that gossips without TLS does: %w", err)
	default:
		return err
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
