package gossip

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/duramendb/duramen/internal/service"
	"github.com/duramendb/duramen/ring"
)

const (
	// tickInterval is how often the node looks whether something is due. News that moves placement does not wait for it.
	tickInterval = 250 * time.Millisecond
	// saveInterval is how often the table is written to disk at most; beatSaveInterval when only heartbeats are new. The
	// proof that lets a crashed member be forgotten allows for its last heartbeat to be that much older than the truth.
	saveInterval     = 5 * time.Second
	beatSaveInterval = 15 * time.Second
	// forgetInterval is how often members that do not answer are looked at.
	forgetInterval = time.Minute
	// beatPerMember stretches the interval between heartbeats in large clusters, so that news keeps fitting into packets.
	beatPerMember = 100 * time.Millisecond
	// streamTimeout is how long a member may take to answer a connection.
	streamTimeout = 5 * time.Second
	leaveTimeout  = time.Second
)

// Self is who this process is.
type Self struct {
	// ID names the instance over restarts and new disks. Roles are what it does.
	ID    string
	Roles []ring.Role
	// Zone is "" when none is configured.
	Zone string
	// Ordinal is ring.NoOrdinal when it follows from the ID or is to be claimed, which is the usual case.
	Ordinal int
	// StorageID names the data directory.
	StorageID string
	// Address and HTTPAddress are those of the listeners. A host that is missing or stands for all addresses is replaced
	// by the one that is advertised for gossip.
	Address, HTTPAddress string
	Version              string
	Protocol             int
}

// Node is this process as a member of the cluster, and what it knows of the others. It is safe for concurrent use.
type Node struct {
	cfg     Config
	self    Self
	dir     string
	now     func() time.Time
	log     *slog.Logger
	metrics *metrics
	service *service.Service
	// listen opens the transport; tests replace it.
	listen func(logger *logAdapter) (endpoint, error)

	ring  atomic.Pointer[ring.Ring]
	list  atomic.Pointer[memberlist.Memberlist] // nil before Starting
	queue *memberlist.TransmitLimitedQueue
	name  string // of this life in memberlist

	// The goroutines of Starting, which Stopping waits for. cancel ends them, interrupt the connections that they wait for.
	cancel    context.CancelFunc
	interrupt func()
	// Where this member listens, set by Starting.
	port       int
	onLoopback bool
	running    sync.WaitGroup
	// met is closed when the first round of joining is over; errand wakes the one who runs errands.
	met    chan struct{}
	errand chan struct{}

	mtx      sync.Mutex
	table    *ring.Table
	own      ring.Member
	id       identity
	place    place
	host     string   // advertised
	keys     [][]byte // of the encryption
	stopped  bool
	silent   string // why the own entry is not announced; "" when it is
	foreign  *ring.Member
	giveBack map[string]ring.Entry
	peers    map[string]string
	clocks   map[string]*clock
	problems map[string]problem
	changed  chan struct{} // closed at the next change of placement
	updated  chan struct{} // closed at the next publication
	unsaved  bool          // changes
	beats    bool          // heartbeats that are not saved
	news     bool          // not yet published
	heard    heard
	last     struct{ beat, save, forget, publish time.Time }
}

// New checks what it is given. Nothing happens before Service is started, and Ring is empty until then. dir is for the
// node's own files, now is time.Now but in tests.
func New(cfg Config, rings ring.Config, self Self, dir string, now func() time.Time, log *slog.Logger,
	reg prometheus.Registerer,
) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if self.ID == "" || self.StorageID == "" {
		return nil, errors.New("a member of a cluster needs an instance ID and a storage ID")
	}
	n := &Node{
		cfg: cfg, self: self, dir: dir, now: now, log: log,
		name: self.ID + lifeSeparator + rand.Text()[:10],
		met:  make(chan struct{}), errand: make(chan struct{}, 1),
		table: ring.NewTable(), giveBack: map[string]ring.Entry{}, peers: map[string]string{}, clocks: map[string]*clock{},
		problems: map[string]problem{}, changed: make(chan struct{}), updated: make(chan struct{}),
	}
	n.listen = n.listenNetwork
	n.ring.Store(ring.New(rings, nil, now()))
	n.place = newPlace(self)
	n.queue = &memberlist.TransmitLimitedQueue{RetransmitMult: retransmitMult, NumNodes: n.size}
	n.metrics = newMetrics(reg, n)
	n.service = service.NewService("ring", service.Phases{
		Starting: n.starting, Running: nil, Stopping: n.stopping,
	})
	return n, nil
}

// Service returns the node's life. Started, it gossips as a JOINING member; see Activate.
func (n *Node) Service() *service.Service { return n.service }

// Ring returns the cluster as it is known here now. It is never nil.
func (n *Node) Ring() *ring.Ring { return n.ring.Load() }

// Changed returns a channel that is closed at the next change of placement. Ask for it before reading the ring.
func (n *Node) Changed() <-chan struct{} {
	n.mtx.Lock()
	defer n.mtx.Unlock()
	return n.changed
}

// Self returns the own entry as it was last announced.
func (n *Node) Self() ring.Member {
	n.mtx.Lock()
	defer n.mtx.Unlock()
	return n.own
}

// Update changes the own entry and announces it. Identity, epoch and counter are not fn's to change. Before the service
// is started it is without effect.
func (n *Node) Update(fn func(m *ring.Member)) {
	n.mtx.Lock()
	defer n.mtx.Unlock()
	if n.own.ID == "" || n.stopped {
		return
	}
	m := n.own
	fn(&m)
	m.ID, m.StorageID, m.Registered = n.own.ID, n.own.StorageID, n.own.Registered
	m.Epoch, m.Counter, m.Fresh, m.LostBefore = n.own.Epoch, n.own.Counter, n.own.Fresh, n.own.LostBefore
	m.Address, m.HTTPAddress = withHost(m.Address, n.host), withHost(m.HTTPAddress, n.host)
	n.own = m
	n.announce()
}

// SetState announces a state. To become ACTIVE for the first time call Activate, which knows when that is right.
func (n *Node) SetState(state ring.State) { n.Update(func(m *ring.Member) { m.State = state }) }

// starting reads the node's files, opens its listeners, and begins to gossip as JOINING. It does not wait for others.
func (n *Node) starting(ctx context.Context) error {
	if err := n.load(); err != nil {
		return err
	}
	conf, err := n.memberlistConfig()
	if err != nil {
		return err
	}
	list, err := memberlist.Create(conf)
	if err != nil {
		return errors.Join(fmt.Errorf("start gossip: %w", err), conf.Transport.Shutdown())
	}
	n.list.Store(list)
	n.mtx.Lock()
	n.announce()
	n.mtx.Unlock()
	n.log.Info("gossiping", "address", list.LocalNode().Address(), "instance", n.self.ID, "epoch", n.Self().Epoch)

	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	n.cancel = cancel
	for _, work := range []func(context.Context){n.tick, n.join, n.runErrands} {
		n.running.Go(func() { work(life) })
	}
	return nil
}

// load reads what was kept on disk and takes the next epoch.
func (n *Node) load() error {
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		return fmt.Errorf("create directory of the ring: %w", err)
	}
	n.mtx.Lock()
	defer n.mtx.Unlock()
	now := n.now()
	var err error
	if n.id, err = openIdentity(n.dir, n.self.StorageID, now.UnixMilli()); err != nil {
		if !errors.Is(err, errDamaged) {
			return err
		}
		n.log.Error("identity lost; epoch and first start are learned from other members", "err", err)
	}
	kept, err := openTable(n.dir)
	if err != nil {
		if !errors.Is(err, errDamaged) {
			return err
		}
		n.log.Error("list of members lost; it is learned from other members", "err", err)
	}
	ring.Merge(n.table, now, kept.Entries...)
	n.table.Expire(now)
	maps.Copy(n.peers, kept.Peers)
	n.beginAnew(now)
	n.own = ring.Member{
		ID: n.self.ID, Roles: n.self.Roles, Zone: n.self.Zone, Ordinal: n.place.start(&n.id), StorageID: n.self.StorageID,
		State: ring.Joining, Version: n.self.Version, Protocol: n.self.Protocol, ReplicationFactor: n.Ring().RF(),
	}
	if e, ok := n.table.Get(n.self.ID); ok {
		n.learnOwn(&e)
		n.id.Epoch = max(n.id.Epoch, e.Epoch())
	}
	return n.takeEpoch(0)
}

// memberlistConfig opens the transport and returns all that memberlist has to know.
func (n *Node) memberlistConfig() (*memberlist.Config, error) {
	keys, err := n.cfg.keys()
	if err != nil {
		return nil, fmt.Errorf("memberlist.%w", err)
	}
	adapter := &logAdapter{log: n.log, metrics: n.metrics, ration: newRation(n.now)}
	at, err := n.listen(adapter)
	if err != nil {
		return nil, err
	}
	n.interrupt, n.port, n.onLoopback = at.interrupt, at.bound, at.onLoopback
	n.mtx.Lock()
	n.host, n.keys = at.ip.String(), keys
	n.own.Address, n.own.HTTPAddress = withHost(n.self.Address, n.host), withHost(n.self.HTTPAddress, n.host)
	n.mtx.Unlock()

	c := memberlist.DefaultLANConfig()
	c.Name, c.Label, c.Transport = n.name, n.cfg.ClusterLabel, at.transport
	c.BindAddr, c.BindPort = at.ip.String(), at.port
	c.AdvertiseAddr, c.AdvertisePort = at.ip.String(), at.port
	c.GossipInterval, c.UDPBufferSize = n.cfg.GossipInterval, n.cfg.MaxPacketBytes
	c.TCPTimeout = streamTimeout
	c.EnableCompression = false // packets are filled before they are compressed, so it would save nothing but CPU
	c.Delegate = &delegate{n: n}
	c.Logger = adapter.logger()
	if len(keys) > 0 {
		if c.Keyring, err = memberlist.NewKeyring(keys, keys[0]); err != nil {
			return nil, errors.Join(fmt.Errorf("encryption keys: %w", err), at.transport.Shutdown())
		}
	}
	return c, nil
}

// stopping says goodbye. A member that holds no samples is LEFT; an ingester keeps its entry, because its samples stay.
func (n *Node) stopping(error) error {
	list := n.list.Load()
	if list == nil {
		return nil
	}
	n.cancel()
	if n.interrupt != nil {
		n.interrupt()
	}
	n.running.Wait()
	n.mtx.Lock()
	if n.silent == "" && n.own.State != ring.Left && (!n.own.Has(ring.RoleIngester) || !n.own.HoldsData()) {
		n.own.State = ring.Left
		n.announce()
	}
	n.stopped = true
	message, _ := encodeMessage(ring.MemberEntry(n.own)) // it was encoded a moment ago
	silent := n.silent != ""
	n.mtx.Unlock()
	if !silent {
		n.tellSome(message)
	}
	err := n.saveTable()
	if leaveErr := list.Leave(leaveTimeout); leaveErr != nil {
		n.log.Debug("leave was not confirmed", "err", leaveErr)
	}
	return errors.Join(err, list.Shutdown())
}

// tick does what is due, until ctx ends.
func (n *Node) tick(ctx context.Context) {
	ticker := time.NewTicker(min(tickInterval, n.cfg.HeartbeatInterval))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		n.due()
	}
}

func (n *Node) due() {
	now := n.now()
	n.mtx.Lock()
	if now.Sub(n.last.beat) >= n.beatInterval() {
		n.announce()
	}
	if n.news || now.Sub(n.last.publish) >= time.Second {
		n.publish()
	}
	n.checkProblems(now)
	forget := now.Sub(n.last.forget) >= forgetInterval
	if forget {
		n.last.forget = now
		n.unsaved = n.table.Expire(now) > 0 || n.unsaved
		n.dropStrays()
	}
	n.regainTrust()
	save := n.unsaved && now.Sub(n.last.save) >= saveInterval || n.beats && now.Sub(n.last.save) >= beatSaveInterval
	n.mtx.Unlock()
	if forget {
		n.forgetProven(now)
	}
	if save {
		if err := n.saveTable(); err != nil {
			n.log.Error("list of members not saved", "err", err)
		}
	}
}

// beatInterval is longer in large clusters.
func (n *Node) beatInterval() time.Duration {
	members := time.Duration(n.table.Len())
	if members <= 50 {
		return n.cfg.HeartbeatInterval
	}
	return max(n.cfg.HeartbeatInterval, min(members*beatPerMember, n.Ring().Config().HeartbeatTimeout/3))
}

// announce makes the own entry news. The caller holds the mutex.
func (n *Node) announce() {
	n.last.beat = n.now()
	if n.silent != "" || n.stopped {
		return
	}
	n.own.Counter++
	n.own.Heartbeat = n.last.beat.UnixMilli()
	n.own.Seen = n.own.Heartbeat
	n.merge(ring.MemberEntry(n.own))
}

// merge takes entries into the table and passes on what is news. The caller holds the mutex.
func (n *Node) merge(entries ...ring.Entry) {
	for _, e := range entries {
		old, known := n.table.Get(e.ID())
		if len(ring.Merge(n.table, n.now(), e)) == 0 {
			continue
		}
		n.broadcast(e)
		if known {
			n.noteReplaced(&old, &e)
		}
		n.beats, n.news = true, true
		if !known || movesPlacement(&old, &e) {
			n.unsaved = true
			n.publish()
		}
	}
}

// movesPlacement reports whether the news is more than a heartbeat.
func movesPlacement(old, e *ring.Entry) bool {
	a, b := old.Member, e.Member
	return (old.Forgotten == nil) != (e.Forgotten == nil) || a.State != b.State || a.Epoch != b.Epoch ||
		a.Ordinal != b.Ordinal || a.Zone != b.Zone || a.Address != b.Address || a.LostBefore != b.LostBefore
}

// publish makes the table the ring that callers see. The caller holds the mutex.
func (n *Node) publish() {
	n.news, n.last.publish = false, n.now()
	old := n.Ring()
	next := old.Next(n.table.Entries(), n.last.publish)
	n.ring.Store(next)
	if old.Version() != next.Version() {
		n.metrics.changes.Inc()
		close(n.changed)
		n.changed = make(chan struct{})
	}
	n.metrics.observe(next, n.last.publish)
	close(n.updated)
	n.updated = make(chan struct{})
}

// dropStrays forgets clocks and addresses of those who are no members any more. The caller holds the mutex.
func (n *Node) dropStrays() {
	gone := func(id string) bool {
		m, ok := n.Ring().Get(id)
		return !ok || m.State == ring.Left
	}
	maps.DeleteFunc(n.clocks, func(id string, _ *clock) bool { return gone(id) })
	maps.DeleteFunc(n.peers, func(id, _ string) bool { return gone(id) })
}

// saveTable writes what is known of the cluster.
func (n *Node) saveTable() error {
	n.mtx.Lock()
	n.unsaved, n.beats, n.last.save = false, false, n.now()
	file := tableFile{Entries: n.table.Entries(), Peers: maps.Clone(n.peers)}
	n.mtx.Unlock()
	if err := file.save(n.dir); err != nil {
		n.mtx.Lock()
		n.unsaved = true
		n.mtx.Unlock()
		return fmt.Errorf("save members to %s: %w", filepath.Join(n.dir, tableName), err)
	}
	return nil
}

// size is how many members memberlist sees, this one included.
func (n *Node) size() int {
	list := n.list.Load()
	if list == nil {
		return 1
	}
	return list.NumMembers()
}
