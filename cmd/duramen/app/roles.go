package app

import (
	"fmt"
	"slices"
	"strings"
)

// The roles that a process can play.
const (
	roleDistributor  = "distributor"
	roleIngester     = "ingester"
	roleQuerier      = "querier"
	roleStoreGateway = "store-gateway"
	roleCompactor    = "compactor"
)

// Names that stand for several roles.
const (
	// roleAll is every role in one process, which calls itself in process where it would use the network to ask another.
	roleAll     = "all"
	roleWrite   = "write"
	roleRead    = "read"
	roleBackend = "backend"
)

// everyRole is in the order in which roles are shown.
func everyRole() []string {
	return []string{roleDistributor, roleIngester, roleQuerier, roleStoreGateway, roleCompactor}
}

// rolesNamed returns the roles that one name of the target stands for, none when it is no such name.
func rolesNamed(name string) []string {
	switch name {
	case roleAll:
		return everyRole()
	case roleWrite:
		return []string{roleDistributor, roleIngester}
	case roleRead:
		return []string{roleQuerier, roleStoreGateway}
	case roleBackend:
		return []string{roleStoreGateway, roleCompactor}
	}
	if slices.Contains(everyRole(), name) {
		return []string{name}
	}
	return nil
}

// roleParts are the parts of the wiring table that a role is made of; what these need comes with them.
func roleParts(role string) []string {
	switch role {
	case roleDistributor:
		return []string{"distributor"}
	case roleIngester:
		return []string{"ingester"}
	case roleQuerier:
		return []string{"querier"}
	case roleStoreGateway:
		return []string{"store gateway", "grpc server"}
	case roleCompactor:
		return []string{"reconciler", "compactor"}
	default:
		return nil
	}
}

// roles are those that the target names, each once. Where no cluster is, and where other store-gateways are named, "all"
// reads blocks for itself and for nobody else.
func (c *Config) roles() []string {
	var named []string
	for name := range strings.SplitSeq(c.Target, ",") {
		roles := rolesNamed(name)
		if name == roleAll && (!c.clustered() || len(c.Querier.StoreGatewayAddresses) > 0) {
			roles = slices.DeleteFunc(roles, func(role string) bool { return role == roleStoreGateway })
		}
		named = append(named, roles...)
	}
	return slices.DeleteFunc(everyRole(), func(role string) bool { return !slices.Contains(named, role) })
}

// plays reports whether this process plays the role.
func (c *Config) plays(role string) bool { return slices.Contains(c.roles(), role) }

// onlyReadsBlocks reports whether this process is a store-gateway and nothing else.
func (c *Config) onlyReadsBlocks() bool { return slices.Equal(c.roles(), []string{roleStoreGateway}) }

// clustered reports whether this process is a member of a cluster: it gossips, has a place on the ring, and writes to and
// reads from other processes. One that does everything, or only reads blocks for a fixed list of queriers, is none unless
// it is told whom to join or to keep several copies.
func (c *Config) clustered() bool {
	if len(c.Memberlist.Join) > 0 || c.Ring.ReplicationFactor > 1 {
		return true
	}
	for name := range strings.SplitSeq(c.Target, ",") {
		if name != roleAll && name != roleStoreGateway {
			return true
		}
	}
	return false
}

func (c *Config) validateTarget() error {
	const right = "use \"all\", or one or more of distributor, ingester, querier, store-gateway and compactor, or write, " +
		"read and backend for two of them each"
	for name := range strings.SplitSeq(c.Target, ",") {
		switch name {
		case "query-frontend", "ruler": // names of the design
			return fmt.Errorf("target is %q; this build has no role %s: %s", c.Target, name, right)
		}
		if rolesNamed(name) == nil {
			return fmt.Errorf("target is %q; %s", c.Target, right)
		}
	}
	if len(c.Querier.StoreGatewayAddresses) > 0 && c.plays(roleStoreGateway) {
		return fmt.Errorf("target is %q, whose store-gateway reads blocks itself, and querier.store_gateway_addresses names "+
			"others; leave out one of them", c.Target)
	}
	return nil
}

// reachable returns the lines of the table that the named parts are or need, in the order of the table.
func reachable(table []part, names []string) []part {
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	var parts []part
	for _, p := range slices.Backward(table) { // what a part needs is further up
		if !wanted[p.name] {
			continue
		}
		for _, need := range p.needs {
			wanted[need] = true
		}
		parts = append(parts, p)
	}
	slices.Reverse(parts)
	return parts
}
