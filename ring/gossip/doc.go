// Package gossip owns how members of a cluster tell one another of themselves: the shell around package ring, on stock
// memberlist. It decides nothing about placement, and never writes another member's entry, except the tombstone of one
// that is forgotten. Read package ring next for what the entries mean, then docs/protocol.md for what is on the wire and
// on disk.
package gossip
