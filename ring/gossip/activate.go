package gossip

import (
	"context"
	"fmt"
	"time"

	"github.com/duramendb/duramen/ring"
)

const (
	// claimPatience is how long a new instance without an ordinal waits for others before it takes itself for the
	// first. Those that start at the same moment find one another in that time.
	claimPatience = 5 * time.Second
	// claimSettles is how many intervals of gossip a claim is open to objections.
	claimSettles = 5
	// sayAfter is how long the member may wait before the log says why it is not ACTIVE, and remindInterval how often.
	sayAfter       = 3 * time.Second
	remindInterval = time.Minute
)

// Activate makes a JOINING member ACTIVE, when it has met the others, or can reach none of them, and its ordinal is
// settled. Until then it waits; NotActive says for what. It returns ctx's error when that ends first, or an error of
// the disk.
func (n *Node) Activate(ctx context.Context) error {
	select {
	case <-n.met:
	case <-ctx.Done():
		return fmt.Errorf("join the cluster: %w", context.Cause(ctx))
	}
	if err := n.claim(ctx); err != nil {
		return err
	}
	remind := n.now().Add(sayAfter)
	for {
		n.mtx.Lock()
		reason := n.obstacle()
		updated := n.updated
		if reason == "" && n.place.needed && n.own.Fresh {
			err := n.expectData()
			n.announce()
			n.mtx.Unlock()
			if err == nil {
				err = n.introduce(ctx)
			}
			if err != nil {
				return err
			}
			continue
		}
		if reason == "" {
			err := n.activate()
			n.mtx.Unlock()
			return err
		}
		n.setProblem(problemOrdinal, reason)
		n.mtx.Unlock()
		if now := n.now(); !now.Before(remind) {
			remind = now.Add(remindInterval)
			n.log.Error("member stays JOINING", "reason", reason)
		}
		select {
		case <-updated:
		case <-ctx.Done():
			return fmt.Errorf("become ACTIVE: %s: %w", reason, context.Cause(ctx))
		}
	}
}

// NotActive says why Activate waits, or why the member is not as it should be; "" when all is well.
func (n *Node) NotActive() string {
	n.mtx.Lock()
	defer n.mtx.Unlock()
	if n.own.State != ring.Joining {
		return n.silent
	}
	if reason := n.obstacle(); reason != "" {
		return reason
	}
	return "it has not joined the cluster yet"
}

// obstacle is what keeps the member from being ACTIVE, or "". The caller holds the mutex.
func (n *Node) obstacle() string {
	switch {
	case n.silent != "":
		return n.silent
	case n.foreign != nil:
		return "an entry of the same instance ID is being looked at"
	case n.own.State == ring.Joining && n.copiesFault(n.now()) != "":
		return n.copiesFault(n.now())
	case !n.place.needed:
		return ""
	case n.own.Ordinal < 0:
		return "no ordinal is claimed yet"
	}
	if owner, ok := n.Ring().OrdinalOwner(n.own.Zone, n.own.Ordinal); ok && owner.ID != n.own.ID {
		return fmt.Sprintf("ordinal %d of zone %q belongs to %s at %s, which registered first: give one of them another "+
			"-ring.instance-id", n.own.Ordinal, n.Ring().ZoneOf(n.own), owner.ID, owner.Address)
	}
	return ""
}

// expectData notes on disk that this storage may hold samples from now on, and has it said. The caller holds the mutex.
func (n *Node) expectData() error {
	if !n.id.Activated || n.place.claiming {
		next := n.id
		next.Activated = true
		if n.place.claiming {
			ordinal := n.own.Ordinal
			next.Claimed, next.ClaimedZone = &ordinal, n.own.Zone
		}
		if err := next.save(n.dir); err != nil {
			return fmt.Errorf("become ACTIVE: %w", err)
		}
		n.id = next
	}
	n.own.Fresh = false
	return nil
}

// activate announces ACTIVE. The caller holds the mutex.
func (n *Node) activate() error {
	if err := n.expectData(); err != nil {
		return err
	}
	n.clearProblem(problemOrdinal)
	n.own.State = ring.Active
	n.announce()
	n.log.Info("member is ACTIVE", "zone", n.Ring().ZoneOf(n.own), "ordinal", n.own.Ordinal, "epoch", n.own.Epoch)
	return nil
}

// claim finds an ordinal for an ingester that has none, or whose claim turned out to be another one's before it ever
// used it.
func (n *Node) claim(ctx context.Context) error {
	if !n.place.claiming {
		return nil
	}
	if n.Self().Ordinal < 0 {
		if err := n.waitForOthers(ctx); err != nil {
			return err
		}
	}
	for {
		n.mtx.Lock()
		owner, taken := n.Ring().OrdinalOwner(n.own.Zone, n.own.Ordinal)
		settled := n.own.Ordinal >= 0 && (!taken || owner.ID == n.own.ID)
		if !settled && !n.id.Activated {
			n.own.Ordinal = lowestFree(n.Ring(), n.own.Zone, n.own.ID)
			n.log.Info("ordinal claimed", "ordinal", n.own.Ordinal)
			n.announce()
			n.publish()
		}
		used := n.id.Activated
		n.mtx.Unlock()
		if used || n.size() < 2 && !n.awaitsOthers(ctx) {
			return nil // it is what it was, and a conflict is for Activate to tell of; or nobody is there to object
		}
		if err := n.wait(ctx, claimSettles*n.cfg.GossipInterval); err != nil {
			return err
		}
		n.mtx.Lock()
		owner, taken = n.Ring().OrdinalOwner(n.own.Zone, n.own.Ordinal)
		settled = n.own.Ordinal >= 0 && (!taken || owner.ID == n.own.ID)
		n.mtx.Unlock()
		if settled {
			return nil
		}
	}
}

// waitForOthers gives those in the join list some time.
func (n *Node) waitForOthers(ctx context.Context) error {
	deadline := n.now().Add(claimPatience)
	for n.size() < 2 && n.awaitsOthers(ctx) && n.now().Before(deadline) {
		if err := n.wait(ctx, n.cfg.GossipInterval); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("claim an ordinal: %w", context.Cause(ctx))
	}
}
