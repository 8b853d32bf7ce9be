package tlsgossip

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/internal/certtest"
	"github.com/duramendb/duramen/internal/tlsfiles"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// record is what a transport has reported.
type record struct {
	mu                           sync.Mutex
	refused                      []string // "in" or "out", and the error
	malformed, unsent, overloads int
}

func (r *record) Refused(inbound bool, _ string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	side := "out: "
	if inbound {
		side = "in: "
	}
	r.refused = append(r.refused, side+err.Error())
}

func (r *record) Malformed(string, error) { r.add(&r.malformed, 1) }
func (r *record) Unsent(_ string, n int)  { r.add(&r.unsent, n) }
func (r *record) Overloaded(string)       { r.add(&r.overloads, 1) }

func (r *record) add(to *int, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*to += n
}

func (r *record) count(of *int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *of
}

// says reports whether a refusal has the text.
func (r *record) says(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.refused, func(s string) bool { return bytes.Contains([]byte(s), []byte(text)) })
}

// member is a transport with its own certificate.
type member struct {
	*Transport
	*record

	cert, key string
	address   string
}

// start runs a member whose certificate is of one authority and that trusts another.
func start(t *testing.T, of, trusts *certtest.Authority, name string, port int) *member {
	t.Helper()
	m := &member{record: &record{}}
	m.cert, m.key = of.Issue(t, "member")
	log := slog.New(slog.DiscardHandler)
	files := Files{Name: name}
	var err error
	files.Server, err = tlsfiles.OpenServer(tlsfiles.ServerConfig{CertFile: m.cert, KeyFile: m.key, ClientCAFile: trusts.File}, log)
	require.NoError(t, err)
	files.Client, err = tlsfiles.OpenClient(tlsfiles.ClientConfig{CertFile: m.cert, KeyFile: m.key, CAFile: trusts.File}, log)
	require.NoError(t, err)
	m.Transport, err = Listen(net.IPv4(127, 0, 0, 1), port, files, m.record)
	require.NoError(t, err)
	m.connecting = time.Minute
	t.Cleanup(func() { require.NoError(t, m.Shutdown()) })
	m.address = fmt.Sprintf("127.0.0.1:%d", m.Port())
	return m
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, 30*time.Second, 5*time.Millisecond, what)
}

// stream opens a stream from one member to another and returns both ends.
func stream(t *testing.T, from, to *member) (near, far net.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	near, err := from.Dial(ctx, to.address)
	require.NoError(t, err)
	far = <-to.StreamCh()
	t.Cleanup(func() {
		_ = near.Close()
		_ = far.Close()
	})
	return near, far
}

func TestPacketsAndStreams(t *testing.T) {
	ours := certtest.New(t)
	a, b := start(t, ours, ours, "", 0), start(t, ours, ours, "", 0)
	large := bytes.Repeat([]byte("x"), maxPayload)
	for _, packet := range [][]byte{[]byte("one"), large, []byte("three")} {
		_, err := a.WriteTo(packet, b.address)
		require.NoError(t, err)
		got := <-b.PacketCh()
		require.Equal(t, packet, got.Buf)
		require.NotNil(t, got.From)
	}
	near, far := stream(t, a, b)
	_, err := near.Write([]byte("hello"))
	require.NoError(t, err)
	got := make([]byte, 5)
	_, err = io.ReadFull(far, got)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
	require.Len(t, a.senders, 1)
	require.Empty(t, a.refused)
	require.Empty(t, b.refused)

	_, err = a.WriteTo(append(large, 'x'), b.address)
	require.Error(t, err, "no length for it")
}

// TestADeadPeerDelaysNobody: neither who writes, nor packets for others, nor the stop.
func TestADeadPeerDelaysNobody(t *testing.T) {
	mute, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer mute.Close()
	ours := certtest.New(t)
	a, b := start(t, ours, ours, "", 0), start(t, ours, ours, "", 0)
	const written = 3 * maxQueued
	for range written {
		_, err := a.WriteTo([]byte("packet"), mute.Addr().String())
		require.NoError(t, err)
	}
	require.GreaterOrEqual(t, a.count(&a.unsent), written-maxQueued-1, "the queue is bounded, and what does not fit is counted")
	_, err = a.WriteTo([]byte("packet"), b.address)
	require.NoError(t, err)
	require.Equal(t, "packet", string((<-b.PacketCh()).Buf), "while the connection to the other hangs")
	require.NoError(t, a.Shutdown())
	require.Equal(t, written, a.count(&a.unsent))
	_, err = a.WriteTo([]byte("packet"), b.address)
	require.ErrorIs(t, err, ErrClosed)
}

func TestAPeerThatComesBackIsReached(t *testing.T) {
	ours := certtest.New(t)
	a, b := start(t, ours, ours, "", 0), start(t, ours, ours, "", 0)
	port := b.Port()
	write := func() {
		_, err := a.WriteTo([]byte("packet"), b.address)
		require.NoError(t, err)
	}
	write()
	<-b.PacketCh()
	require.NoError(t, b.Shutdown())
	eventually(t, "packets are lost meanwhile", func() bool {
		write()
		return a.count(&a.unsent) > 0
	})
	again := start(t, ours, ours, "", port)
	eventually(t, "packets arrive again", func() bool {
		write()
		select {
		case <-again.PacketCh():
			return true
		default:
			return false
		}
	})
}

func TestWhatWasWrittenGoesOutBeforeTheEnd(t *testing.T) {
	ours := certtest.New(t)
	a, b := start(t, ours, ours, "", 0), start(t, ours, ours, "", 0)
	_, err := a.WriteTo([]byte{0}, b.address) // the connection is there
	require.NoError(t, err)
	<-b.PacketCh()
	a.flushing = time.Minute
	for i := range 20 {
		_, err := a.WriteTo([]byte{byte(i)}, b.address)
		require.NoError(t, err)
	}
	require.NoError(t, a.Shutdown())
	for i := range 20 {
		require.Equal(t, []byte{byte(i)}, (<-b.PacketCh()).Buf)
	}
}

func TestStrangersAreRefusedAndBothSidesSayWhy(t *testing.T) {
	ours, others := certtest.New(t), certtest.New(t)
	member := start(t, ours, ours, "", 0)
	for name, tc := range map[string]struct {
		of, trusts *certtest.Authority
		name       string
		here, them string
	}{
		"signed by another":    {others, ours, "", "in: tls: ", "refuses this member's certificate"},
		"trusts another":       {ours, others, "", "in: remote error: tls", "certificate signed by unknown authority"},
		"expects another name": {ours, ours, "elsewhere", "in: remote error: tls", "elsewhere"},
	} {
		stranger := start(t, tc.of, tc.trusts, tc.name, 0)
		_, err := stranger.Dial(t.Context(), member.address)
		require.ErrorContains(t, err, tc.them, name)
		require.True(t, stranger.says("out: "), name)
		eventually(t, name, func() bool { return member.says(tc.here) })
	}
	named := start(t, ours, ours, "localhost", 0)
	_, err := named.Dial(t.Context(), member.address)
	require.NoError(t, err, "both names are in the certificate")
	strict := start(t, ours, ours, "elsewhere", 0)
	_, err = member.Dial(t.Context(), strict.address)
	require.Error(t, err)
	eventually(t, "the name is demanded of those who connect, too", func() bool { return strict.says("in: ") && strict.says("elsewhere") })
}

// TestOtherProtocolsAreRefused: who speaks no TLS gets an alert that it can read, also when it has sent much.
func TestOtherProtocolsAreRefused(t *testing.T) {
	ours := certtest.New(t)
	m := start(t, ours, ours, "", 0)
	for _, first := range []string{"GET / HTTP/1.1\r\n\r\n", "\xf4\x07duramen" + string(make([]byte, 100_000)), "\x06 garbage"} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", m.address)
		require.NoError(t, err)
		_, err = io.WriteString(conn, first)
		require.NoError(t, err)
		alert := make([]byte, len(alertRecord))
		_, err = io.ReadFull(conn, alert)
		require.NoError(t, err)
		require.Equal(t, alertRecord, string(alert))
		require.NoError(t, conn.Close())
	}
	require.True(t, m.says("in: the other side gossips without TLS"))

	browser := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}} //nolint:gosec // it is to be refused
	conn, err := tls.Dial("tcp", m.address, browser)
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
		_ = conn.Close()
	}
	require.Error(t, err)
	eventually(t, "it is counted", func() bool { return m.says("unsupported application protocols") })
}

func TestAMemberThatSendsNoPacketsIsLeft(t *testing.T) {
	ours := certtest.New(t)
	a, b := start(t, ours, ours, "", 0), start(t, ours, ours, "", 0)
	conn, err := a.connect(t.Context(), b.address, protocolPackets)
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte{0, 0})
	require.NoError(t, err)
	_, err = conn.Read(make([]byte, 1))
	require.Error(t, err, "the connection is closed")
	require.Equal(t, 1, b.count(&b.malformed))
}

// TestTheNextConnectionShowsTheNewCertificate, without a restart of either side.
func TestTheNextConnectionShowsTheNewCertificate(t *testing.T) {
	ours := certtest.New(t)
	a, b := start(t, ours, ours, "", 0), start(t, ours, ours, "", 0)
	shown := func(from, to *member) *big.Int {
		near, far := stream(t, from, to)
		defer near.Close()
		defer far.Close()
		return far.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber //nolint:forcetypeassert // it is one
	}
	before := shown(a, b)
	require.Equal(t, before, shown(a, b))
	ours.Renew(t, a.cert, a.key)
	eventually(t, "the new one is shown", func() bool { return shown(a, b).Cmp(before) != 0 })
	near, _ := stream(t, b, a)
	served := near.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber //nolint:forcetypeassert // it is one
	require.NotEqual(t, before, served, "to those who connect, too")
}

// FuzzReadFrame gives the reader of packets what anybody may send.
func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0})
	f.Add([]byte{0, 0, 1})
	f.Add([]byte{0xff, 0xff, 1, 2})
	f.Add(appendFrame(appendFrame(nil, []byte("one")), []byte("two")))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReader(bytes.NewReader(data))
		var again []byte
		for {
			packet, err := readFrame(r)
			if err != nil {
				break
			}
			require.NotEmpty(t, packet)
			again = appendFrame(again, packet)
		}
		require.True(t, bytes.HasPrefix(data, again), "what was read is what was written")
	})
}
