// Package tlsfiles owns the settings of TLS that name files, and configurations that follow these files when they change.
// It refuses to open a connection or to listen, and takes no certificate for good that its authorities did not sign. Read
// package peerconn next for gRPC with it, package ring/gossip/tlsgossip for gossip.
package tlsfiles
