package app

import (
	"errors"
	"time"

	"github.com/duramendb/duramen/distributor/replicate"
	"github.com/duramendb/duramen/ingester/ingestrpc"
	"github.com/duramendb/duramen/internal/service"
	"github.com/duramendb/duramen/querier"
	"github.com/duramendb/duramen/ring"
)

// buildReplicator is what a distributor of a cluster writes to in place of an ingester.
func buildReplicator(a *App) (_ *service.Service, err error) {
	a.pushes, err = ingestrpc.NewClient(a.cfg.IngesterClient, a.peers, a.logger("push"), a.reg)
	if err != nil {
		return nil, err
	}
	a.onClose(a.pushes.Close)
	peers := pushPeers{client: a.pushes, self: a.instanceID}
	if a.ingester != nil {
		peers.local = ingestrpc.NewLocal(a.cfg.IngesterClient, a.ingester, a.logger("push"))
		a.onClose(peers.local.Close)
	}
	a.replicator, err = replicate.New(a.cfg.Replicate, a.ring, peers, a.limits, time.Now, a.log, a.reg)
	if err != nil {
		return nil, err
	}
	return service.NewService("replicator", service.Phases{
		Stopping: func(error) error { return a.replicator.Close() },
	}), nil
}

// pushPeers leads to each ingester of the ring, and to the one of this process without a network.
type pushPeers struct {
	client *ingestrpc.Client
	self   string
	local  *ingestrpc.Local // nil without an ingester
}

// Peer implements replicate.Peers.
func (p pushPeers) Peer(m ring.Member) replicate.Peer {
	if p.local != nil && m.ID == p.self {
		return p.local
	}
	return p.client.Peer(m.Address)
}

// recentReader answers what ingesters of a cluster hold.
type recentReader interface {
	querier.Recent
	querier.Extras
	statsSource
}

// buildFanout is what a querier of a cluster asks in place of an ingester.
func buildFanout(*App) (*service.Service, error) {
	return nil, errors.New("this build cannot read from the ingesters of a cluster yet; leave out the role querier")
}
