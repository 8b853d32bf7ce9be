package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"github.com/duramendb/duramen/chunkstore/gateway"
	"github.com/duramendb/duramen/ingester/membership"
	"github.com/duramendb/duramen/internal/peerconn"
	"github.com/duramendb/duramen/internal/service"
	"github.com/duramendb/duramen/ring"
	"github.com/duramendb/duramen/ring/gossip"
)

// protocol is the version of what members say to one another. A change that the release before does not understand
// raises it.
const protocol = 1

// buildRing makes this process a member of the cluster. From its start it is seen as JOINING; see buildMembership.
func buildRing(a *App) (*service.Service, error) {
	hostname, _ := os.Hostname() // without one the setting is asked for
	listen := a.cfg.Server.GRPCListenAddress
	id, err := instanceID(a.cfg.Ring.InstanceID, hostname, listen, a.dataDir.instance.StorageID)
	if err != nil {
		return nil, err
	}
	address, httpAddress, err := a.addresses(portOf(listen), portOf(a.cfg.Server.HTTPListenAddress))
	if err != nil {
		return nil, err
	}
	if a.cfg.plays(roleIngester) {
		given := gossip.Self{ID: id, Roles: []ring.Role{ring.RoleIngester}, Ordinal: ring.NoOrdinal}.GivenOrdinal()
		if err := a.dataDir.checkPlace(a.cfg.Ring.InstanceZone, given); err != nil {
			return nil, err
		}
	}
	self := gossip.Self{
		ID: id, Zone: a.cfg.Ring.InstanceZone, Ordinal: ring.NoOrdinal, StorageID: a.dataDir.instance.StorageID,
		Address: address, HTTPAddress: httpAddress, Version: a.build.Version, Protocol: protocol,
	}
	for _, role := range a.cfg.roles() {
		self.Roles = append(self.Roles, ring.Role(role))
	}
	a.ring, err = gossip.New(a.cfg.Memberlist, a.cfg.ringConfig(), self, filepath.Join(a.dataDir.path, "ring"), time.Now,
		a.logger("ring"), a.reg)
	if err != nil {
		return nil, err
	}
	a.instanceID = id
	return a.ring.Service(), nil
}

// addresses are those of both listeners, as others reach them.
func (a *App) addresses(grpcPort, httpPort string) (address, httpAddress string, err error) {
	if len(wires(a.cfg).served) == 0 {
		// Nobody can ask this process for anything but its pages.
		httpAddress, err = advertised("", a.cfg.Server.HTTPListenAddress, httpPort)
		return "", httpAddress, err
	}
	if address, err = advertised(a.cfg.Ring.InstanceAddr, a.cfg.Server.GRPCListenAddress, grpcPort); err != nil {
		return "", "", err
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return "", "", err
	}
	if a.cfg.Ring.InstanceAddr == "" {
		host = ""
	}
	httpAddress, err = advertised(host, a.cfg.Server.HTTPListenAddress, httpPort)
	return address, httpAddress, err
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address) // validated
	return port
}

func (a *App) checkRing(context.Context) error {
	var errs []error
	for _, text := range a.ring.Problems() {
		errs = append(errs, errors.New(text))
	}
	return errors.Join(errs...)
}

// buildMembership announces this process as ACTIVE when all its other parts run, and comes last for that.
func buildMembership(a *App) (*service.Service, error) {
	return service.NewService("membership", service.Phases{
		Starting: a.join,
		Stopping: func(error) error {
			if !a.cfg.plays(roleIngester) {
				a.ring.SetState(ring.Leaving) // the others turn to another one of its role
			}
			return nil
		},
	}), nil
}

// buildIngesterMembership makes an ingester say how far it has shipped, and leave when it is told to. It starts when the
// member is ACTIVE and stops first of all.
func buildIngesterMembership(a *App) (*service.Service, error) {
	a.membership = membership.New(a.dataDir.path, a.ingester, a.ring, a.dataDir.leavePlace, time.Now,
		a.logger("membership"))
	if err := a.membership.Restore(); err != nil {
		return nil, err
	}
	return a.membership.Service(), nil
}

// join waits until this member has its place among the others.
func (a *App) join(ctx context.Context) error {
	if err := a.announceAddresses(); err != nil {
		return err
	}
	if err := a.ring.Activate(ctx); err != nil {
		return err
	}
	self := a.ring.Self()
	if self.Has(ring.RoleIngester) {
		if err := a.dataDir.takePlace(self.Zone, self.Ordinal); err != nil {
			return err
		}
	}
	a.log.Info("member of the cluster", "instance", self.ID, "zone", a.ring.Ring().ZoneOf(self), "ordinal", self.Ordinal,
		"address", self.Address, "replication_factor", a.ring.Ring().RF())
	return nil
}

// announceAddresses tells the ports on which this process listens, which the system may have chosen.
func (a *App) announceAddresses() error {
	port := ""
	if a.grpc != nil {
		port = portOf(a.grpc.address())
	}
	address, httpAddress, err := a.addresses(port, portOf(a.http.address()))
	if err != nil {
		return err
	}
	a.ring.Update(func(m *ring.Member) {
		m.Address, m.HTTPAddress = withHost(address, m.Address), withHost(httpAddress, m.HTTPAddress)
	})
	return nil
}

// withHost gives an address that has no host the one of another.
func withHost(address, other string) string {
	host, port, _ := net.SplitHostPort(address) // made by us
	if address == "" {
		return ""
	}
	if host == "" {
		host, _, _ = net.SplitHostPort(other)
	}
	return net.JoinHostPort(host, port)
}

// notActive says why this member is not to be given work, "" when it is. One that drains still answers queries, and
// load balancers need not know.
func (a *App) notActive() string {
	switch self := a.ring.Self(); self.State {
	case ring.Active, ring.ReadOnly:
		return ""
	case ring.Joining:
		return a.ring.NotActive()
	default:
		return "the member is " + self.State.String()
	}
}

// buildPeers holds the connections to other members.
func buildPeers(a *App) (_ *service.Service, err error) {
	if a.peers, err = peerconn.New(a.cfg.GRPCClient, a.logger("peers"), a.reg); err != nil {
		return nil, err
	}
	a.onClose(a.peers.Close)
	return service.NewService("peers", service.Phases{Running: a.followMembers}), nil
}

// followEvery is how often the members are looked at, when none of the ingesters has changed.
const followEvery = time.Second

// followMembers forgets connections to those who are members no more, and has those tried at once that came back.
func (a *App) followMembers(ctx context.Context) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	epochs := map[string]uint64{}
	for {
		changed := a.ring.Changed()
		addresses := map[string]bool{}
		for _, e := range a.ring.Ring().All() {
			m := e.Member
			if e.Forgotten != nil || m.State == ring.Left || m.Address == "" {
				continue
			}
			addresses[m.Address] = true
			if known, ok := epochs[m.ID]; ok && known != m.Epoch {
				a.peers.Reset(m.Address)
			}
			epochs[m.ID] = m.Epoch
		}
		keep := func(address string) bool { return addresses[address] }
		a.peers.Keep(keep)
		if a.pushes != nil {
			a.pushes.Keep(keep)
		}
		select {
		case <-changed: // of ingesters
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// checkPeers names the members that cannot be reached from here.
func (a *App) checkPeers(context.Context) error {
	var errs []error
	now := time.Now()
	view := a.ring.Ring()
	for _, e := range view.All() {
		m := e.Member
		if e.Forgotten != nil || m.State == ring.Left || m.ID == a.instanceID {
			continue
		}
		switch {
		case !view.Alive(m, now):
			errs = append(errs, fmt.Errorf("%s (%s, %s) has not been heard of for %s", m.ID, m.Address, m.State,
				now.Sub(time.UnixMilli(m.Seen)).Round(time.Second)))
		case a.peers.Failing(m.Address):
			errs = append(errs, fmt.Errorf("%s (%s, %s) cannot be reached", m.ID, m.Address, m.State))
		}
	}
	return errors.Join(errs...)
}

// dial is a connection to an address for one call.
func (a *App) dial(address string) (grpc.ClientConnInterface, func(), error) {
	conn, err := a.peers.Get(address)
	if err != nil {
		return nil, nil, err
	}
	return conn, conn.Release, nil
}

// ringGateways are the store-gateways of the ring.
type ringGateways struct{ rings rings }

// StoreGateways implements gateway.Members.
func (g ringGateways) StoreGateways() []gateway.Member {
	var members []gateway.Member
	for _, m := range g.rings.Ring().Members(ring.RoleStoreGateway) {
		members = append(members, gateway.Member{ID: m.ID, Address: m.Address})
	}
	return members
}

// ownsTenant reports whether this process compares a tenant's folder with its manifest. While nobody is known to do so,
// everybody does.
func (a *App) ownsTenant(tenantID string) bool {
	owner, ok := a.ring.Ring().Owner(ring.RoleCompactor, tenantID)
	return !ok || owner.ID == a.instanceID
}
