// Package tlsgossip owns gossip over TLS: a transport of memberlist whose packets and streams both travel over connections
// to one TCP port, on which each side has shown a certificate. It refuses to know members and what they say, and keeps
// nothing for a peer that is away. Read package gossip next, which has memberlist use it.
package tlsgossip
