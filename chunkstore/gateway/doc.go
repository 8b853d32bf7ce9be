// Package gateway owns the store-gateway role: a gRPC server around a reader.Source, and a client that is a reader.Source
// itself and spreads blocks over servers. It refuses to answer in part: what the client was not told to be whole is an
// error that names the server, and no server ever owns a block, so any of them can answer for any. Read docs/protocol.md
// next for the frames, and package chunkstore/reader for what stands at both ends.
package gateway
