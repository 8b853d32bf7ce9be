// Package peerconn owns the gRPC connections to other processes of the cluster: one to each address, with the same
// credentials, limits and keep-alive, and the knowledge of which of them fail. It refuses to know who is a member and what
// is said over a connection; it retries nothing. Read packages ingester/ingestrpc and chunkstore/gateway next for who calls.
package peerconn
