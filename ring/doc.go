// Package ring owns what a cluster agrees on: who its members are, which ingesters hold a series, which of them must
// answer a query, and when a member may be forgotten. It is pure: it refuses goroutines, sockets, disks and clocks, so
// that hundreds of members fit in a test, and whoever calls it passes the time in. Read ring/docs/placement.md next,
// and ring/gossip for the part that talks to other processes.
package ring
