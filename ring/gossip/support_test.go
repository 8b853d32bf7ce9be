package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/ring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a network in memory with some hosts, inside a synctest bubble: its time passes when all wait.
type world struct {
	t     *testing.T
	rings ring.Config
	mtx   sync.Mutex
	// up are hosts that run; side tells hosts apart that do not hear one another.
	up   map[string]bool
	side map[string]int
	host map[string]*host // by address
}

// all calls fn for each node that runs and reports whether all answers are true.
func (w *world) all(fn func(h *host) bool) bool {
	for _, h := range w.host {
		if h.Node != nil && !fn(h) {
			return false
		}
	}
	return true
}

// host is an address with a data directory, on which nodes live one after the other.
type host struct {
	w         *world
	name      string
	address   string
	transport *memberlist.MockTransport
	dir       string
	storage   string
	clock     time.Duration // ahead of the true time
	drain     chan struct{} // closed to stop draining
	drained   sync.WaitGroup

	*Node
	log *logs
}

// newWorld makes the hosts that there will ever be: the network cannot grow.
func newWorld(t *testing.T, names ...string) *world {
	w := &world{
		t: t, rings: ring.Config{ReplicationFactor: 3, HeartbeatTimeout: 30 * time.Second}, up: map[string]bool{},
		side: map[string]int{}, host: map[string]*host{},
	}
	var network memberlist.MockNetwork
	for i, name := range names {
		h := &host{
			w: w, name: name, address: fmt.Sprintf("127.0.0.1:%d", i+1), transport: network.NewTransport(name),
			dir: t.TempDir(), storage: "storage-" + name, log: &logs{t: t, name: name},
		}
		w.host[h.address] = h
		h.shut()
	}
	t.Cleanup(func() {
		for _, h := range w.host {
			if h.Node != nil {
				h.kill()
			}
		}
		w.pass(30 * time.Second) // what memberlist has begun, it ends by itself
		for _, h := range w.host {
			h.open()
		}
	})
	return w
}

// at returns a host by its name.
func (w *world) at(name string) *host {
	for _, h := range w.host {
		if h.name == name {
			return h
		}
	}
	w.t.Fatalf("no host %q", name)
	return nil
}

// reach reports whether one host can send to another.
func (w *world) reach(from, to string) bool {
	w.mtx.Lock()
	defer w.mtx.Unlock()
	return w.up[from] && w.up[to] && w.side[from] == w.side[to]
}

// part separates hosts from all others.
func (w *world) part(side int, names ...string) {
	w.mtx.Lock()
	defer w.mtx.Unlock()
	for _, h := range w.host {
		for _, name := range names {
			if h.name == name {
				w.side[h.address] = side
			}
		}
	}
}

// shut makes the host silent: what is underway to it disappears instead of blocking its sender for ever.
func (h *host) shut() {
	h.w.mtx.Lock()
	h.w.up[h.address] = false
	h.w.mtx.Unlock()
	h.drain = make(chan struct{})
	h.drained.Go(func() {
		for {
			select {
			case <-h.drain:
				return
			case <-h.transport.PacketCh():
			case conn := <-h.transport.StreamCh():
				conn.Close()
			}
		}
	})
}

// open ends shut.
func (h *host) open() {
	if h.drain == nil {
		return
	}
	close(h.drain)
	h.drained.Wait()
	h.drain = nil
}

// config is one that finds the first three hosts.
func (h *host) config() Config {
	c := defaults()
	c.Join = []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}
	c.GossipInterval, c.HeartbeatInterval = 500*time.Millisecond, 10*time.Second
	return c
}

func (h *host) self() Self {
	return Self{
		ID: h.name, Roles: []ring.Role{ring.RoleIngester}, Zone: "zone-" + h.name[:1], Ordinal: ring.NoOrdinal,
		StorageID: h.storage, Address: h.address, HTTPAddress: h.address, Version: "test",
	}
}

// start runs a node with the settings and waits for nobody.
func (h *host) start(change ...func(c *Config, s *Self)) *host {
	h.w.t.Helper()
	cfg, self := h.config(), h.self()
	for _, fn := range change {
		fn(&cfg, &self)
	}
	now := func() time.Time { return time.Now().Add(h.clock) }
	n, err := New(cfg, h.w.rings, self, h.dir, now, slog.New(h.log), prometheus.NewPedanticRegistry())
	require.NoError(h.w.t, err)
	n.listen = func(*logAdapter) (endpoint, error) {
		_, port, err := splitAddress(h.address)
		return endpoint{transport: &cable{MockTransport: h.transport, h: h}, ip: net.IPv4(127, 0, 0, 1).To4(), port: port}, err
	}
	h.Node = n
	h.open()
	h.w.mtx.Lock()
	h.w.up[h.address] = true
	h.w.mtx.Unlock()
	require.NoError(h.w.t, n.Service().Start(h.w.t.Context()))
	return h
}

// activate is start and Activate.
func (h *host) activate(change ...func(c *Config, s *Self)) *host {
	h.w.t.Helper()
	h.start(change...)
	require.NoError(h.w.t, h.Activate(h.w.t.Context()))
	return h
}

// kill ends the node as SIGKILL does, as far as others and the disk can tell.
func (h *host) kill() {
	h.shut()
	disk := h.disk()
	n := h.Node
	h.Node = nil
	_ = n.Service().Stop()
	h.restore(disk)
}

// disk is what is on the host's disk now; restore brings it back. nil is an empty one.
func (h *host) disk() map[string][]byte {
	files := map[string][]byte{}
	for _, name := range []string{identityName, tableName} {
		if data, err := os.ReadFile(filepath.Join(h.dir, name)); err == nil {
			files[name] = data
		}
	}
	return files
}

func (h *host) restore(files map[string][]byte) {
	h.w.t.Helper()
	for _, name := range []string{identityName, tableName} {
		require.NoError(h.w.t, os.RemoveAll(filepath.Join(h.dir, name)))
	}
	for name, data := range files {
		require.NoError(h.w.t, os.WriteFile(filepath.Join(h.dir, name), data, 0o600))
	}
}

// wipe replaces the host's disk.
func (h *host) wipe() {
	h.restore(nil)
	h.storage += "-new"
}

// stop ends the node in order.
func (h *host) stop() {
	h.w.t.Helper()
	require.NoError(h.w.t, h.Service().Stop())
	h.Node = nil
	h.shut()
}

// cable is a host's transport.
type cable struct {
	*memberlist.MockTransport

	h *host
}

var errUnreachable = errors.New("host is unreachable")

func (c *cable) WriteTo(b []byte, address string) (time.Time, error) {
	return c.WriteToAddress(b, memberlist.Address{Addr: address})
}

func (c *cable) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if !c.h.w.reach(c.h.address, a.Addr) {
		return time.Now(), nil // as UDP does
	}
	// A network does not wait for who receives; two that sent to one another would wait for ever.
	packet := bytes.Clone(b)
	go c.MockTransport.WriteToAddress(packet, memberlist.Address{Addr: a.Addr})
	return time.Now(), nil
}

func (c *cable) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	return c.DialAddressTimeout(memberlist.Address{Addr: address}, timeout)
}

func (c *cable) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if !c.h.w.reach(c.h.address, a.Addr) {
		return nil, errUnreachable
	}
	return c.MockTransport.DialAddressTimeout(memberlist.Address{Addr: a.Addr}, timeout)
}

// eventually lets time pass until the condition holds, for five minutes of the bubble's time.
func (w *world) eventually(what string, condition func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); !condition(); {
		if time.Now().After(deadline) {
			w.t.Fatalf("never: %s", what)
		}
		w.pass(50 * time.Millisecond)
	}
}

// after runs fn and returns what tells that it has ended.
func (w *world) after(fn func(context.Context) error) (done func() bool) {
	end := make(chan error, 1)
	go func() { end <- fn(w.t.Context()) }()
	return func() bool {
		select {
		case err := <-end:
			if err != nil && !errors.Is(err, context.Canceled) {
				w.t.Error(err)
			}
			return true
		default:
			return false
		}
	}
}

// pass lets time of the bubble pass.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// logs are the lines of one host.
type logs struct {
	t    *testing.T
	name string
	mtx  sync.Mutex
	text []string
}

func (l *logs) Enabled(context.Context, slog.Level) bool { return true }

func (l *logs) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	l.mtx.Lock()
	defer l.mtx.Unlock()
	l.text = append(l.text, line)
	if testing.Verbose() && r.Level > slog.LevelDebug {
		l.t.Log(time.Now().Format("04:05.000"), l.name, line)
	}
	return nil
}

func (l *logs) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *logs) WithGroup(string) slog.Handler      { return l }

// has reports whether a line with the text was logged.
func (l *logs) has(text string) bool {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	for _, line := range l.text {
		if strings.Contains(line, text) {
			return true
		}
	}
	return false
}
