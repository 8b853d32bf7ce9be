// Package membership owns what an ingester says of itself in the ring once it is ACTIVE: how far it has shipped, that it
// is being drained, that it has left. It refuses to hold samples or to gossip: package ingester does the one, ring/gossip
// the other, and both are small interfaces here. Read docs/cluster.md, "More ingesters, fewer ingesters", next.
package membership
