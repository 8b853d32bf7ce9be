package tlsgossip

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// inboundIdle and inboundLife are longer than what the connecting side allows itself (idleTimeout, linkLife), so that it
	// is that side which ends a connection: a packet that meets the end of a connection is lost.
	inboundIdle = 3 * idleTimeout
	inboundLife = linkLife + 5*time.Minute
	// lingerTimeout and lingerBytes bound how long, and of how much, a stranger is listened to that has to read an alert.
	lingerTimeout = time.Second
	lingerBytes   = 1 << 20
	// acceptPause is waited when the system has no more connections to give.
	acceptPause = 50 * time.Millisecond
)

// accept takes connections until the listener is closed.
func (t *Transport) accept() {
	for {
		conn, err := t.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			select {
			case <-t.closing:
			case <-time.After(acceptPause):
			}
			continue
		}
		select {
		case t.handshakes <- struct{}{}:
		default:
			t.reports.Overloaded(conn.RemoteAddr().String())
			_ = conn.Close()
			continue
		}
		if !t.keep(conn) {
			<-t.handshakes
			_ = conn.Close()
			continue
		}
		t.working.Go(func() { t.serve(conn) })
	}
}

// keep notes a connection for Shutdown, and reports false when that has begun.
func (t *Transport) keep(conn net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.inbound[conn] = struct{}{}
	}
	return !t.closed
}

func (t *Transport) forget(conn net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.inbound, conn)
}

// serve carries out the handshake of a connection and hands over what comes.
func (t *Transport) serve(plain net.Conn) {
	conn, protocol, err := t.welcome(plain)
	<-t.handshakes
	if err != nil {
		t.forget(plain)
		_ = plain.Close()
		return
	}
	defer t.forget(plain)
	if protocol == protocolPackets {
		t.readPackets(conn)
		_ = plain.Close()
		return
	}
	select {
	case t.streams <- conn: // memberlist closes it
	case <-t.closing:
		_ = plain.Close()
	}
}

// welcome carries out the handshake and says that this member accepts the other's certificate.
func (t *Transport) welcome(plain net.Conn) (*tls.Conn, string, error) {
	config := t.server.Current().Clone()
	config.NextProtos = []string{protocolPackets, protocolStream}
	config.SessionTicketsDisabled = true // each connection is to show its certificate
	if t.name != "" {
		config.VerifyConnection = func(state tls.ConnectionState) error {
			return state.PeerCertificates[0].VerifyHostname(t.name)
		}
	}
	first := &firstRead{Conn: plain}
	conn := tls.Server(first, config)
	ctx, cancel := context.WithTimeout(t.life, handshakeTimeout)
	defer cancel()
	err := conn.HandshakeContext(ctx)
	protocol := conn.ConnectionState().NegotiatedProtocol
	switch {
	case err != nil:
		t.refuse(first, err)
		return nil, "", err
	case protocol == "":
		err = errors.New("the other side speaks TLS, but no gossip")
		t.reports.Refused(true, plain.RemoteAddr().String(), err)
		return nil, "", err
	}
	if err = conn.SetWriteDeadline(time.Now().Add(handshakeTimeout)); err == nil {
		if _, err = conn.Write([]byte{welcome}); err == nil {
			err = conn.SetDeadline(time.Time{})
		}
	}
	return conn, protocol, err
}

// refuse reports a handshake that failed. Who speaks no TLS is sent an alert in the clear, for a member that gossips without
// TLS knows one when it sees it.
func (t *Transport) refuse(conn *firstRead, err error) {
	address := conn.RemoteAddr().String()
	var record tls.RecordHeaderError
	switch {
	case !conn.any || errors.Is(err, net.ErrClosed):
		return // a probe of the port, or the end of this process
	case errors.As(err, &record) && record.Conn != nil:
		t.reports.Refused(true, address, errors.New("the other side gossips without TLS"))
		t.alert(conn)
	case isTimeout(err):
		t.reports.Refused(true, address, errors.New("the other side did not finish its handshake"))
	default:
		t.reports.Refused(true, address, explainRefusal(err))
	}
}

// alertRecord is "fatal: unexpected message" of TLS 1.2.
const alertRecord = "\x15\x03\x03\x00\x02\x02\x0a"

// alert sends an alert, and reads on for a while: what was not read would take the alert with it when the connection is
// closed.
func (t *Transport) alert(conn *firstRead) {
	stop := context.AfterFunc(t.life, func() { _ = conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(lingerTimeout)); err != nil {
		return
	}
	if _, err := io.WriteString(conn, alertRecord); err != nil {
		return
	}
	if tcp, ok := conn.Conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, conn, lingerBytes)
}

// explainRefusal is explain from the accepting side.
func explainRefusal(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the other side closed the connection during its handshake")
	}
	return err
}

// readPackets hands packets to memberlist until the connection ends.
func (t *Transport) readPackets(conn *tls.Conn) {
	until := time.Now().Add(inboundLife)
	r := bufio.NewReader(conn)
	for {
		deadline := time.Now().Add(inboundIdle)
		if until.Before(deadline) {
			deadline = until
		}
		if err := conn.SetReadDeadline(deadline); err != nil {
			return
		}
		packet, err := readFrame(r)
		if err != nil {
			if errors.Is(err, errEmpty) {
				t.reports.Malformed(conn.RemoteAddr().String(), err)
			}
			return
		}
		select {
		case t.packets <- &memberlist.Packet{Buf: packet, From: conn.RemoteAddr(), Timestamp: time.Now()}:
		case <-t.closing:
			return
		}
	}
}

// firstRead knows whether anything was ever read.
type firstRead struct {
	net.Conn

	any bool
}

// Read implements net.Conn.
func (c *firstRead) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.any = true
	}
	return n, err
}
