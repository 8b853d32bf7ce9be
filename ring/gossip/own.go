package gossip

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/duramendb/duramen/ring"
)

// lifeSeparator stands between instance ID and life in the names that memberlist knows: each life has its own, so that
// an address that changed with a restart is no conflict, and the dead one is told from the living.
const lifeSeparator = "#"

// futureTolerance is how far ahead of its arrival a sample's timestamp may be, at most.
const futureTolerance = 30 * time.Minute

// aboutSelf looks at an entry of the own ID that somebody else sent, before it is merged. The caller holds the mutex.
//
// The own entry comes back all the time. Another one is of an earlier life whose epoch was lost with its disk, or of
// another process that has the same ID; which of them is found out by runErrands, for it takes a moment.
func (n *Node) aboutSelf(e *ring.Entry) {
	if n.own.ID == "" {
		return
	}
	_, beaten := ring.Reclaim(n.own, *e)
	if e.Forgotten != nil {
		n.learnOwn(e)
		if beaten {
			n.log.Warn("this instance was forgotten by the cluster and announces itself anew", "epoch", e.Epoch())
			n.outbid(e.Epoch())
		}
		return
	}
	held := e.Member.StorageID != n.own.StorageID && e.Epoch() > max(n.id.LostEpoch, n.id.ForgivenEpoch)
	if !beaten && !held {
		return
	}
	if f := n.foreign; f != nil && (f.Epoch > e.Epoch() || f.Epoch == e.Epoch() && f.Counter >= e.Member.Counter) {
		return // it is being looked at
	}
	m := e.Member
	n.foreign = &m
	n.wake()
}

// learnOwn takes what an entry of the own ID says of earlier lives that are over. The caller holds the mutex.
func (n *Node) learnOwn(e *ring.Entry) {
	m := &e.Member
	// Who is back is not asked before it is ACTIVE, and may have another disk: readers still need the bucket.
	n.own.Floor = max(n.own.Floor, m.Floor)
	switch {
	case e.Forgotten != nil:
		n.own.Floor = max(n.own.Floor, e.Forgotten.Floor)
		// It was forgotten because all that it had is in the bucket, or because an operator gave up the rest.
		n.id.ForgivenEpoch = max(n.id.ForgivenEpoch, e.Epoch())
		if n.id.LostEpoch <= n.id.ForgivenEpoch {
			n.id.LostBefore = 0
		}
	case m.StorageID == n.own.StorageID:
		if m.Epoch <= n.id.Epoch {
			return // known already; otherwise the file of the identity was lost, or set back
		}
		n.id.Activated = n.id.Activated || !m.Fresh
		if m.Registered > 0 {
			n.id.Registered = min(n.id.Registered, m.Registered)
		}
		n.id.LostBefore = max(n.id.LostBefore, m.LostBefore)
	case m.Epoch > n.id.ForgivenEpoch:
		n.id.LostEpoch = max(n.id.LostEpoch, m.Epoch)
		n.id.LostBefore = max(n.id.LostBefore, m.LostBefore)
		if m.Has(ring.RoleIngester) && m.HoldsData() && m.ShippedUpTo < m.Heartbeat {
			// It may have taken samples until this storage began, and some of them from the future.
			n.id.LostBefore = max(n.id.LostBefore, n.id.Registered+futureTolerance.Milliseconds())
			n.log.Error("an earlier disk of this instance is gone with samples that are not in the bucket; "+
				"queries of that time rely on the other zones until these have shipped it", "storage", m.StorageID,
				"new_storage", n.own.StorageID, "before", time.UnixMilli(n.id.LostBefore).UTC())
		}
	}
}

// beginAnew makes a storage that left with everything in the bucket like one that was never used: who has its ordinal by
// now keeps it. The caller holds the mutex.
func (n *Node) beginAnew(now time.Time) {
	e, ok := n.table.Get(n.self.ID)
	if !ok || e.Forgotten != nil || e.Member.State != ring.Left || e.Member.StorageID != n.id.StorageID ||
		e.Member.Epoch != n.id.Epoch {
		return
	}
	n.id.Activated, n.id.Claimed, n.id.Registered = false, nil, now.UnixMilli()
}

// takeEpoch begins an epoch above all that is known, and writes it to disk before it is used. The caller holds the mutex.
func (n *Node) takeEpoch(above uint64) error {
	next := n.id
	next.Epoch = max(n.id.Epoch, n.own.Epoch, above) + 1
	if err := next.save(n.dir); err != nil {
		return fmt.Errorf("save epoch: %w", err)
	}
	n.id = next
	n.own.Epoch, n.own.Counter = next.Epoch, 0
	n.own.Registered, n.own.Fresh, n.own.LostBefore = next.Registered, !next.Activated, next.LostBefore
	return nil
}

// outbid announces the own entry with an epoch above the given one. The caller holds the mutex.
func (n *Node) outbid(epoch uint64) {
	if err := n.takeEpoch(epoch); err != nil {
		n.setProblem(problemDisk, err.Error())
		return
	}
	n.clearProblem(problemDisk)
	n.announce()
}

// wake makes runErrands look for work.
func (n *Node) wake() {
	select {
	case n.errand <- struct{}{}:
	default:
	}
}

// rivalInterval is how often a rival is asked whether it is still there.
const rivalInterval = 5 * time.Second

// runErrands does what takes a conversation with other members, until ctx ends.
func (n *Node) runErrands(ctx context.Context) {
	ticker := time.NewTicker(rivalInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.errand:
		case <-ticker.C:
		}
		n.settleIdentity()
		n.returnReplaced()
	}
}

// settleIdentity decides who a foreign entry of the own ID belongs to: another process, which has the ID if its storage
// is the older one, or an earlier life, which is over.
func (n *Node) settleIdentity() {
	n.mtx.Lock()
	foreign := n.foreign
	_, disputed := n.problems[problemIdentity]
	n.mtx.Unlock()
	if foreign == nil {
		if disputed && !n.seesTwin() {
			n.mtx.Lock()
			defer n.mtx.Unlock()
			if n.foreign == nil {
				n.clearProblem(problemIdentity) // the younger one is gone
			}
		}
		return
	}
	rival := n.findRival()
	n.mtx.Lock()
	defer n.mtx.Unlock()
	if n.foreign != foreign {
		n.wake() // there is news meanwhile
		return
	}
	if rival != "" && precedes(foreign, &n.own) {
		if n.silent == "" {
			n.log.Error("another process has this instance ID and is older; this one keeps silent", "at", rival,
				"storage", foreign.StorageID)
		}
		n.silent = fmt.Sprintf("another process at %s has the instance ID %q and is older: give one of them another "+
			"-ring.instance-id", rival, n.self.ID)
		n.setProblem(problemIdentity, n.silent)
		return
	}
	n.foreign = nil
	if rival != "" {
		n.log.Error("another process has this instance ID and is younger", "at", rival, "storage", foreign.StorageID)
		n.setProblem(problemIdentity, fmt.Sprintf("another process at %s has the instance ID %q and is younger; it keeps "+
			"silent", rival, n.self.ID))
	} else {
		n.clearProblem(problemIdentity)
		n.learnOwn(&ring.Entry{Member: *foreign})
	}
	n.silent = ""
	n.outbid(foreign.Epoch)
}

// precedes reports which of two processes with one ID keeps it.
func precedes(a, b *ring.Member) bool {
	return cmp.Or(cmp.Compare(a.Registered, b.Registered), cmp.Compare(a.StorageID, b.StorageID),
		cmp.Compare(a.Address, b.Address)) < 0
}

// pings is how often a rival is asked before its silence counts; one packet may be lost.
const pings = 3

// findRival returns the address of another living process with this instance ID, or "".
func (n *Node) findRival() string {
	list := n.list.Load()
	for _, node := range list.Members() {
		if node.Name == n.name || instanceOf(node.Name) != n.self.ID {
			continue
		}
		address := address(node.Address())
		for range pings {
			if _, err := list.Ping(node.Name, address); err == nil {
				return string(address)
			}
		}
	}
	return ""
}

// seesTwin reports whether another life of this instance counts as living.
func (n *Node) seesTwin() bool {
	return slices.ContainsFunc(n.list.Load().Members(), func(node *memberlist.Node) bool {
		return node.Name != n.name && instanceOf(node.Name) == n.self.ID
	})
}

// address is a net.Addr of memberlist's transports.
type address string

// Network implements net.Addr.
func (address) Network() string { return "udp" }

// String implements net.Addr.
func (a address) String() string { return string(a) }

// instanceOf is the instance ID in a name of memberlist.
func instanceOf(name string) string {
	if i := strings.LastIndex(name, lifeSeparator); i >= 0 {
		return name[:i]
	}
	return name
}

// noteReplaced keeps the entry of a storage that another one of the same instance has replaced, when the new one does
// not know of it: only then can it say what was lost. The caller holds the mutex.
func (n *Node) noteReplaced(old, e *ring.Entry) {
	a, b := &old.Member, &e.Member
	if old.Forgotten != nil || e.Forgotten != nil || e.ID() == n.self.ID || a.StorageID == b.StorageID ||
		b.LostBefore > 0 || !a.HoldsData() || !a.Has(ring.RoleIngester) {
		return
	}
	n.giveBack[e.ID()] = *old
	n.wake()
}

// returnReplaced sends entries of lost storages to the instances that replaced them.
func (n *Node) returnReplaced() {
	n.mtx.Lock()
	waiting := n.giveBack
	n.giveBack = map[string]ring.Entry{}
	n.mtx.Unlock()
	list := n.list.Load()
	for id, e := range waiting {
		if n.returnTo(list, id, e) {
			continue
		}
		n.mtx.Lock()
		current, ok := n.table.Get(id)
		if _, newer := n.giveBack[id]; !newer && ok && current.Forgotten == nil && current.Member.LostBefore == 0 {
			n.giveBack[id] = e // again, when it is seen
		}
		n.mtx.Unlock()
	}
}

// returnTo sends an entry to all lives of an instance that memberlist sees, and reports whether one took it.
func (n *Node) returnTo(list *memberlist.Memberlist, id string, e ring.Entry) bool {
	msg, err := encodeMessage(e)
	if err != nil {
		return true
	}
	sent := false
	for _, node := range list.Members() {
		if instanceOf(node.Name) == id {
			sent = list.SendReliable(node, msg) == nil || sent
		}
	}
	return sent
}

// tellSome sends a last word to a few members directly: there is no time left to gossip it.
func (n *Node) tellSome(msg []byte) {
	list, told := n.list.Load(), 0
	for _, node := range list.Members() {
		if node.Name == n.name || told == 3 {
			continue
		}
		if err := list.SendReliable(node, msg); err != nil {
			n.log.Debug("last word not sent", "member", node.Name, "err", err)
			continue
		}
		told++
	}
}

// regainTrust drops LostBefore once the other zones have brought to the bucket what the lost disk held. It becomes the
// floor: those zones need not be asked, and this one does not have it. The caller holds the mutex.
func (n *Node) regainTrust() {
	if n.own.LostBefore == 0 || !n.Ring().LossCleared(n.own) {
		return
	}
	next := n.id
	next.LostBefore = 0
	if err := next.save(n.dir); err != nil {
		n.setProblem(problemDisk, fmt.Sprintf("save identity: %v", err))
		return
	}
	n.clearProblem(problemDisk)
	n.log.Info("what an earlier disk had lost is in the bucket by way of the other zones",
		"before", time.UnixMilli(n.own.LostBefore).UTC())
	n.own.Floor = max(n.own.Floor, n.own.LostBefore)
	n.id, n.own.LostBefore = next, 0
	n.announce()
}

// LoseBefore announces that samples below a time, in milliseconds, were accepted here and may be gone from this disk, as
// after damage of a write log. It is kept over restarts, and taken back when the other zones have brought those samples
// to the bucket. An earlier time than the one that is announced changes nothing.
func (n *Node) LoseBefore(before int64) error {
	n.mtx.Lock()
	defer n.mtx.Unlock()
	if n.own.ID == "" || n.stopped || before <= n.own.LostBefore {
		return nil
	}
	next := n.id
	next.LostBefore = before
	if err := next.save(n.dir); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	n.id, n.own.LostBefore = next, before
	n.announce()
	return nil
}
