package gossip

import (
	"context"
	"strings"
	"time"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/ring"
)

// Forget ends a member that does not come back, for all members of the cluster. Without acceptLoss it does so only with
// the proof that everything acknowledged that the member held is in the bucket; the error says what is missing of it.
// A member that is alive is never forgotten. One that comes back later is a member again.
func (n *Node) Forget(_ context.Context, id string, acceptLoss bool) error {
	now := n.now()
	n.mtx.Lock()
	defer n.mtx.Unlock()
	n.publish()
	r := n.Ring()
	m, ok := r.Get(id)
	switch {
	case !ok:
		return errkind.New(errkind.NotFound, "there is no member %q", id)
	case id == n.self.ID || r.Alive(m, now):
		return errkind.New(errkind.Unprocessable, "member %q is alive; stop it first", id)
	}
	tombstone, reasons := r.Forget(id, now)
	if len(reasons) > 0 && !acceptLoss {
		return errkind.New(errkind.Unprocessable, "member %q may hold samples that are nowhere else: %s. With "+
			"data-loss=accept it is forgotten all the same", id, strings.Join(reasons, "; "))
	}
	tombstone.LossAccepted = len(reasons) > 0
	n.log.Warn("member forgotten by request", "member", id, "epoch", tombstone.Epoch, "loss_accepted",
		tombstone.LossAccepted, "unproven", reasons)
	n.metrics.forgotten.WithLabelValues("request").Inc()
	n.merge(ring.ForgetEntry(tombstone))
	return nil
}

// forgetProven forgets those for whom there is proof. Each member may do it; they come to the same note.
func (n *Node) forgetProven(now time.Time) {
	n.mtx.Lock()
	defer n.mtx.Unlock()
	r := n.Ring()
	for _, e := range r.All() {
		if e.Forgotten != nil || e.ID() == n.self.ID || !e.Member.Has(ring.RoleIngester) || e.Member.State == ring.Left ||
			r.Alive(e.Member, now) {
			continue
		}
		tombstone, reasons := r.Forget(e.ID(), now)
		if len(reasons) > 0 {
			continue
		}
		n.log.Warn("member forgotten: it does not answer, and all that it held is in the bucket", "member", e.ID(),
			"epoch", tombstone.Epoch, "last_heartbeat", time.UnixMilli(e.Member.Heartbeat).UTC())
		n.metrics.forgotten.WithLabelValues("proof").Inc()
		n.merge(ring.ForgetEntry(tombstone))
	}
}
