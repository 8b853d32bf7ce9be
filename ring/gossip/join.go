package gossip

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// firstRetry and lastRetry bound the pauses between tries while this member sees no other.
	firstRetry = 100 * time.Millisecond
	lastRetry  = time.Second
	// parallelJoins is how many addresses are tried at a time: one that does not answer must not hold up the others.
	parallelJoins = 8
	// maxPeers bounds what is tried besides the join list.
	maxPeers = 100
)

// join looks for other members, until ctx ends: at once and often while there are none, then every rejoin interval for
// those of the join list that are not seen. So a cluster that fell apart grows together again.
func (n *Node) join(ctx context.Context) {
	pause := firstRetry
	first := true
	for {
		n.joinMissing(ctx, func() {
			if first && n.size() > 1 {
				n.haveMet()
				first = false
			}
		})
		if first {
			n.haveMet()
			first = false
		}
		n.noteAlone(ctx)
		n.rememberPeers()
		wait := n.cfg.RejoinInterval
		if n.size() > 1 {
			pause = firstRetry
		} else {
			wait, pause = min(pause, wait), min(2*pause, lastRetry)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// noteAlone says when nobody of the join list is seen: a cluster that begins, or a wrong address, label or key.
func (n *Node) noteAlone(ctx context.Context) {
	alone := n.size() < 2 && n.awaitsOthers(ctx)
	n.mtx.Lock()
	defer n.mtx.Unlock()
	if !alone {
		n.clearProblem(problemAlone)
		return
	}
	n.setProblem(problemAlone, fmt.Sprintf("nobody answers at -memberlist.join (%s): the addresses, -memberlist.cluster-label, "+
		"the encryption keys or TLS are wrong, or the others are down", strings.Join(n.cfg.Join, ", ")))
	if p := n.problems[problemAlone]; !p.said && n.now().Sub(p.since) >= sayAfter {
		n.log.Error("this member is alone", "fault", p.text)
		p.said = true
		n.problems[problemAlone] = p
	}
}

// haveMet ends the wait of Activate.
func (n *Node) haveMet() {
	n.mtx.Lock()
	n.publish()
	n.mtx.Unlock()
	close(n.met)
}

// joinMissing tries everybody who should be seen and is not. joined is called after each success, by one at a time.
func (n *Node) joinMissing(ctx context.Context, joined func()) {
	list := n.list.Load()
	seen := map[string]bool{}
	for _, node := range list.Members() {
		seen[node.Address()] = true
	}
	var group errgroup.Group
	group.SetLimit(parallelJoins)
	var mtx sync.Mutex
	for _, address := range n.candidates(ctx) {
		if seen[address] || ctx.Err() != nil {
			continue
		}
		group.Go(func() error {
			n.metrics.joins.Inc()
			if _, err := list.Join([]string{address}); err != nil {
				n.metrics.joinFailures.Inc()
				n.log.Debug("member does not answer", "address", address, "err", err)
				return nil
			}
			mtx.Lock()
			defer mtx.Unlock()
			joined()
			return nil
		})
	}
	_ = group.Wait() // the functions return nil
}

// candidates are the addresses of the join list, then those where members were seen that ought to be there.
func (n *Node) candidates(ctx context.Context) []string {
	var addresses []string
	for _, name := range n.cfg.Join {
		resolved, err := resolveAll(ctx, name)
		if err != nil {
			n.metrics.joinFailures.Inc()
			n.log.Debug("address of the join list not resolved", "address", name, "err", err)
		}
		addresses = append(addresses, resolved...)
	}
	n.mtx.Lock()
	peers := 0
	for _, peer := range n.peers {
		if peers++; peers > maxPeers {
			break
		}
		addresses = append(addresses, peer)
	}
	n.mtx.Unlock()
	addresses = slices.DeleteFunc(addresses, n.isSelf)
	slices.Sort(addresses)
	return slices.Compact(addresses)
}

// resolveAll returns all addresses of host:port.
func resolveAll(ctx context.Context, name string) ([]string, error) {
	host, port, err := splitAddress(name)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); ip != nil {
		return []string{net.JoinHostPort(ip.String(), strconv.Itoa(port))}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", host, err)
	}
	addresses := make([]string, 0, len(ips))
	for _, ip := range ips {
		addresses = append(addresses, net.JoinHostPort(ip.String(), strconv.Itoa(port)))
	}
	return addresses, nil
}

// rememberPeers notes where members are, so that they are found again when the join list does not help.
func (n *Node) rememberPeers() {
	members := n.list.Load().Members()
	n.mtx.Lock()
	defer n.mtx.Unlock()
	for _, node := range members {
		id, at := instanceOf(node.Name), node.Address()
		if node.Name == n.name || n.peers[id] == at {
			continue
		}
		n.peers[id], n.unsaved = at, true
	}
}

// awaitsOthers reports whether the join list names anybody besides this member, as far as addresses tell. A name that is
// not known yet may be anybody's.
func (n *Node) awaitsOthers(ctx context.Context) bool {
	for _, name := range n.cfg.Join {
		addresses, err := resolveAll(ctx, name)
		if err != nil || slices.ContainsFunc(addresses, func(a string) bool { return !n.isSelf(a) }) {
			return true
		}
	}
	return false
}

// isSelf reports whether an address leads back to this member: the advertised one, and loopback when that is listened on.
func (n *Node) isSelf(address string) bool {
	own := n.list.Load().LocalNode()
	if address == own.Address() {
		return true
	}
	host, port, err := splitAddress(address)
	ip := net.ParseIP(host)
	return err == nil && n.onLoopback && port == n.port && ip != nil && ip.IsLoopback()
}
