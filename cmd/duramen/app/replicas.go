package app

import (
	"time"

	"github.com/duramendb/duramen/distributor/replicate"
	"github.com/duramendb/duramen/ingester/ingestrpc"
	"github.com/duramendb/duramen/internal/service"
	"github.com/duramendb/duramen/querier/fanout"
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

// buildFanout is what a querier of a cluster asks in place of an ingester.
func buildFanout(a *App) (*service.Service, error) {
	reads, err := ingestrpc.NewReadClient(a.cfg.IngesterClient.Read, a.dial, a.logger("read"), a.reg)
	if err != nil {
		return nil, err
	}
	members := readMembers{client: reads, self: a.instanceID}
	if a.ingester != nil {
		members.local = ingestrpc.NewLocalReader(a.ingester)
	}
	a.fanout, err = fanout.New(a.cfg.Querier.Fanout, a.ring, members, a.cfg.Ring.InstanceZone, time.Now,
		a.logger("fanout"), a.reg)
	if err != nil {
		return nil, err
	}
	a.onClose(a.fanout.Close)
	return nil, nil
}

// readMembers leads to each ingester of the ring, and to the one of this process without a network.
type readMembers struct {
	client *ingestrpc.ReadClient
	self   string
	local  *ingestrpc.LocalReader // nil without an ingester
}

// Member implements fanout.Members.
func (r readMembers) Member(m ring.Member) fanout.Member {
	if r.local != nil && m.ID == r.self {
		return r.local
	}
	return r.client.Reader(m.Address, m.StorageID)
}
