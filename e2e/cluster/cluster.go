package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/e2e/process"
)

// Member says how a process of a cluster is to be.
type Member struct {
	// Name is the instance's id. Of an ingester it ends in "-" and its ordinal.
	Name string
	// Target names its roles, Zone its zone.
	Target, Zone string
	// Args win over those of the cluster.
	Args []string
	// Host is where it runs; nil is loopback.
	Host *Host
}

// Node is a process of a cluster. It can be started again and again on the same addresses and directory.
type Node struct {
	Member
	*process.Process // of its present or last life; nil before the first

	spec            process.Spec
	http, rpc, chat string // host:port of HTTP, gRPC and gossip
}

// URL is where the node listens for HTTP.
func (n *Node) URL() string { return "http://" + n.http }

// Gossip is the host:port of the node's gossip, and RPC that of its gRPC.
func (n *Node) Gossip() string { return n.chat }

// RPC is the host:port of the node's gRPC server.
func (n *Node) RPC() string { return n.rpc }

// Dir is the node's own directory; below it is "data".
func (n *Node) Dir() string { return n.spec.Dir }

// Data is the node's data directory.
func (n *Node) Data() string { return filepath.Join(n.spec.Dir, "data") }

// Running reports whether the node was started and has not ended.
func (n *Node) Running() bool {
	if n.Process == nil {
		return false
	}
	select {
	case <-n.Done():
		return false
	default:
		return true
	}
}

// Config says how a cluster is to be.
type Config struct {
	Binary string
	// Dir takes the directories of all nodes.
	Dir string
	// Args are for every node; those of a member win over them.
	Args []string
	// Members are the processes. The first two are those that others join. A single one with target all joins nobody and is
	// a node alone, as measurements compare it.
	Members []Member
}

// Cluster is a set of processes that find each other by gossip. It belongs to one goroutine.
type Cluster struct {
	cfg   Config
	Nodes []*Node
	join  []string
}

// New picks addresses and makes an empty bucket; it starts nothing. Close ends what was started.
func New(cfg Config) (*Cluster, error) {
	c := &Cluster{cfg: cfg}
	if err := os.MkdirAll(c.Bucket(), 0o755); err != nil {
		return nil, err
	}
	for _, m := range cfg.Members {
		if _, err := c.Add(m); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Add adds a member to the cluster; it starts nothing.
func (c *Cluster) Add(m Member) (*Node, error) {
	n := &Node{Member: m}
	for _, address := range []*string{&n.http, &n.rpc, &n.chat} {
		host := "127.0.0.1"
		if m.Host != nil {
			host = m.Host.Address
		}
		port, err := process.FreePort() // of loopback, and as good as any other in a namespace
		if err != nil {
			return nil, err
		}
		*address = net.JoinHostPort(host, strconv.Itoa(port))
	}
	if m.Host != nil {
		_, port, err := net.SplitHostPort(n.http)
		if err != nil {
			return nil, err
		}
		n.http = net.JoinHostPort(m.Host.Service, port)
	}
	if len(c.join) < 2 {
		c.join = append(c.join, n.chat)
	}
	n.spec = process.Spec{
		Name: m.Name, Binary: c.cfg.Binary, Dir: filepath.Join(c.cfg.Dir, m.Name), URL: "http://" + n.http, Ready: "/ready",
		Args: slices.Concat([]string{
			"-target=" + m.Target, "-ring.instance-id=" + m.Name, "-ring.instance-zone=" + m.Zone,
			"-data-dir=" + filepath.Join(c.cfg.Dir, m.Name, "data"),
			"-server.http-listen-address=" + n.http, "-server.grpc-listen-address=" + n.rpc,
			"-bucket.filesystem.directory=" + c.Bucket(),
		}, c.cfg.Args, m.Args),
	}
	if m.Host != nil {
		n.spec.Binary, n.spec.Args = m.Host.wrap(n.spec.Binary, n.spec.Args)
	}
	c.Nodes = append(c.Nodes, n)
	return n, nil
}

// Bucket is the directory that all nodes share as their bucket.
func (c *Cluster) Bucket() string { return filepath.Join(c.cfg.Dir, "bucket") }

// Node returns the node of that name.
func (c *Cluster) Node(name string) *Node {
	i := slices.IndexFunc(c.Nodes, func(n *Node) bool { return n.Name == name })
	return c.Nodes[i]
}

// With returns the nodes whose target has a role, or is all, in the order of the members.
func (c *Cluster) With(role string) []*Node {
	var nodes []*Node
	for _, n := range c.Nodes {
		roles := strings.Split(n.Target, ",")
		if slices.Contains(roles, role) || slices.Contains(roles, "all") {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// InZone returns the nodes of a zone that have a role.
func (c *Cluster) InZone(zone, role string) []*Node {
	return slices.DeleteFunc(c.With(role), func(n *Node) bool { return n.Zone != zone })
}

// URLs returns the addresses of HTTP of nodes.
func URLs(nodes []*Node) []string {
	urls := make([]string, len(nodes))
	for i, n := range nodes {
		urls[i] = n.URL()
	}
	return urls
}

// Start starts nodes all at once and waits until each is ready.
func (c *Cluster) Start(ctx context.Context, nodes ...*Node) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, n := range nodes {
		group.Go(func() error {
			if err := c.Launch(n); err != nil {
				return err
			}
			if err := n.WaitReady(ctx); err != nil {
				return fmt.Errorf("%w; the end of its log:\n%s", err, n.LogTail(3000))
			}
			return nil
		})
	}
	return group.Wait()
}

// Launch starts a node and does not wait for it.
func (c *Cluster) Launch(n *Node) error {
	spec := n.spec
	if len(c.Nodes) > 1 || n.Target != "all" {
		spec.Args = append(slices.Clone(spec.Args), "-memberlist.join="+strings.Join(c.join, ","), "-memberlist.bind-address="+n.chat)
	}
	p, err := process.Start(spec)
	if err != nil {
		return err
	}
	n.Process = p
	return nil
}

// Restart ends a node with SIGTERM and starts it again. An exit code other than 0 is an error.
func (c *Cluster) Restart(ctx context.Context, n *Node, timeout time.Duration) error {
	if err := n.Terminate(timeout); err != nil {
		return fmt.Errorf("stop %s: %w; the end of its log:\n%s", n.Name, err, n.LogTail(3000))
	}
	return c.Start(ctx, n)
}

// Close kills what still runs.
func (c *Cluster) Close() {
	for _, n := range c.Nodes {
		if n.Process != nil {
			n.Kill()
		}
	}
}

// Faults are what no log may hold.
var Faults = []string{"WARNING: DATA RACE", "panic: ", "fatal error: "}

// FaultsInLogs returns the begin of each fault that the log of a node tells of.
func (c *Cluster) FaultsInLogs() []string {
	var found []string
	for _, n := range c.Nodes {
		if n.Process == nil {
			continue
		}
		log := n.LogTail(1 << 30)
		for _, fault := range Faults {
			if at := strings.Index(log, fault); at >= 0 {
				found = append(found, n.Name+": "+log[at:min(at+6000, len(log))])
			}
		}
	}
	return found
}
