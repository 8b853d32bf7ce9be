package tlsgossip

import (
	"context"
	"crypto/tls"
	"io"
	"sync"
	"time"
)

const (
	// maxQueued is how many packets wait for one peer: what gossip has for it while a connection is being made, many times
	// over.
	maxQueued = 64
	// maxSenders bounds the peers that packets are sent to at a time.
	maxSenders = 4096
	// idleTimeout is how long a connection is kept on which nothing is sent. In a cluster of hundreds a peer's turn comes
	// every 20 seconds or so.
	idleTimeout = time.Minute
	// linkLife is how long a connection is used at most: by then certificates that were exchanged are in force everywhere.
	linkLife = 10 * time.Minute
	// connectTimeout bounds the making of a connection for packets, writeTimeout the sending of one.
	connectTimeout = 3 * time.Second
	writeTimeout   = 2 * time.Second
	// redialPause is waited after a connection was not made; packets of that time are kept as far as the queue goes.
	redialPause = 500 * time.Millisecond
)

// sender sends packets to one peer, over one connection at a time, which is made when there is a packet.
type sender struct {
	t       *Transport
	address string
	// queue is written to, and closed, with the transport's mutex.
	queue chan []byte
	buf   []byte
}

func newSender(t *Transport, address string) *sender {
	return &sender{t: t, address: address, queue: make(chan []byte, maxQueued)}
}

// run sends until nothing was to be sent for a while, or until the queue is closed and empty.
func (s *sender) run() {
	var l *link
	defer func() { l.close() }()
	idle := time.NewTimer(idleTimeout)
	defer idle.Stop()
	for {
		select {
		case packet, ok := <-s.queue:
			if !ok {
				return
			}
			l = s.send(l, packet)
			idle.Reset(idleTimeout)
		case <-l.ended():
			l.close()
			l = nil
		case <-idle.C:
			if s.retire() {
				return
			}
			idle.Reset(idleTimeout)
		}
	}
}

// retire takes the sender out of the transport, unless there is something to be sent.
func (s *sender) retire() bool {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if s.t.closed || len(s.queue) > 0 {
		return false
	}
	delete(s.t.senders, s.address)
	return true
}

// send sends a packet over the link or, when there is none any more, over a new one. It returns the link to be used next.
func (s *sender) send(l *link, packet []byte) *link {
	if l.over() {
		l.close()
		l = s.connect()
	}
	if l == nil || s.t.life.Err() != nil {
		s.lose()
		return l
	}
	s.buf = appendFrame(s.buf[:0], packet)
	if err := l.write(s.buf); err != nil {
		s.t.reports.Unsent(s.address, 1)
		l.close()
		return nil
	}
	return l
}

// connect returns a link, or nil when there is none to be had. Why, connect of the transport has reported.
func (s *sender) connect() *link {
	ctx, cancel := context.WithTimeout(s.t.life, s.t.connecting)
	conn, err := s.t.connect(ctx, s.address, protocolPackets)
	cancel()
	if err != nil {
		return nil
	}
	return newLink(s.t.life, conn)
}

// lose drops the packet at hand and those that waited for the connection, which is news no longer, and pauses.
func (s *sender) lose() {
	lost := 1
	for len(s.queue) > 0 {
		if _, ok := <-s.queue; ok {
			lost++
		}
	}
	s.t.reports.Unsent(s.address, lost)
	pause := time.NewTimer(redialPause)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-s.t.closing:
	}
}

// link is a connection for packets. A nil one is over. It belongs to one goroutine.
type link struct {
	conn  *tls.Conn
	until time.Time
	gone  chan struct{} // closed when the peer ended the connection
	stop  func() bool
	watch sync.WaitGroup
}

func newLink(life context.Context, conn *tls.Conn) *link {
	l := &link{conn: conn, until: time.Now().Add(linkLife), gone: make(chan struct{})}
	l.stop = context.AfterFunc(life, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	l.watch.Go(func() {
		defer close(l.gone)
		_, _ = io.ReadFull(conn, make([]byte, 1)) // a peer never sends; it is the end that is waited for
	})
	return l
}

// over reports whether a packet should not be sent over the link any more.
func (l *link) over() bool {
	if l == nil {
		return true
	}
	select {
	case <-l.gone:
		return true
	default:
		return time.Now().After(l.until)
	}
}

func (l *link) ended() <-chan struct{} {
	if l == nil {
		return nil
	}
	return l.gone
}

func (l *link) write(frame []byte) error {
	if err := l.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := l.conn.Write(frame)
	return err
}

func (l *link) close() {
	if l == nil {
		return
	}
	l.stop()
	// What was written goes out. TLS would say goodbye before, and wait for a peer that takes nothing any more.
	_ = l.conn.NetConn().Close()
	l.watch.Wait()
}
