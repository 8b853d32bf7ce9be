package gossip

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// introducePatience is how long a new ingester tries to reach members that gossip takes for alive. Who is silent for
	// that long was taken for dead long before.
	introducePatience = time.Minute
	// introduceSettles is how many intervals of gossip the last one whom it told has to take notice: a member answers
	// before it merges what it was told.
	introduceSettles = 2
)

// introduce tells every member of this one, each by itself. It returns when all whom gossip takes for alive know.
//
// A new ingester may be written to as soon as one distributor knows it to be ACTIVE. A querier that had never heard of it
// would then not ask it, take the rest of its zone for all of it, and lack what was acknowledged. So it becomes ACTIVE only
// when everybody knows that it may hold samples.
func (n *Node) introduce(ctx context.Context) error {
	list := n.list.Load()
	deadline := n.now().Add(introducePatience)
	told := map[string]bool{list.LocalNode().Address(): true}
	for tries := 0; ; tries++ {
		var missing []string
		for _, node := range list.Members() {
			if address := node.Address(); !told[address] {
				missing = append(missing, address)
			}
		}
		if len(missing) == 0 && tries == 0 {
			return nil // nobody is there
		}
		if len(missing) == 0 {
			return n.wait(ctx, introduceSettles*n.cfg.GossipInterval)
		}
		if !n.now().Before(deadline) {
			n.log.Warn("members could not be told of this one before it becomes ACTIVE", "addresses", missing)
			return nil
		}
		before := len(told)
		var group errgroup.Group
		group.SetLimit(parallelJoins)
		var mtx sync.Mutex
		for _, address := range missing {
			group.Go(func() error {
				if _, err := list.Join([]string{address}); err != nil {
					n.log.Debug("member does not answer", "address", address, "err", err)
					return nil
				}
				mtx.Lock()
				defer mtx.Unlock()
				told[address] = true
				return nil
			})
		}
		_ = group.Wait() // the functions return nil
		if before == len(told) {
			if err := n.wait(ctx, n.cfg.GossipInterval); err != nil {
				return err
			}
		}
	}
}
