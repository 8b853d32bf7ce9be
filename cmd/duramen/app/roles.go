package app

import (
	"fmt"
	"slices"
	"strings"
)

// The roles that a process of this build can play.
const (
	// roleAll is every role in one process, which calls in process where a cluster would use the network.
	roleAll = "all"
	// roleStoreGateway reads blocks for queriers in other processes.
	roleStoreGateway = "store-gateway"
)

// roleParts are the parts of the wiring table that a role is made of; what these need comes with them.
func roleParts(role string) []string {
	switch role {
	case roleAll:
		return []string{"http server", "tracing", "querier", "distributor", "reconciler"}
	case roleStoreGateway:
		return []string{"http server", "grpc server"}
	default:
		return nil
	}
}

// roles are those that the target names.
func (c *Config) roles() []string { return strings.Split(c.Target, ",") }

// playsAll reports whether this process does everything, and not only reads for others.
func (a *App) playsAll() bool { return slices.Contains(a.cfg.roles(), roleAll) }

func (c *Config) validateTarget() error {
	// Names of DESIGN: they are known, though no build runs them apart yet.
	planned := []string{"distributor", "ingester", "querier", "query-frontend", "compactor", "ruler"}
	for _, role := range c.roles() {
		switch {
		case len(roleParts(role)) > 0:
		case slices.Contains(planned, role):
			return fmt.Errorf("target is %q; this build cannot run the role %s by itself: use %q or %q", c.Target, role,
				roleAll, roleStoreGateway)
		default:
			return fmt.Errorf("target is %q; use %q or %q", c.Target, roleAll, roleStoreGateway)
		}
	}
	if len(c.Querier.StoreGatewayAddresses) > 0 && slices.Contains(c.roles(), roleStoreGateway) {
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
