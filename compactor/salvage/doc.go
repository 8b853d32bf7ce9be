// Package salvage owns what becomes of a damaged block: a new block of everything that can be proven to be readable, and a
// report that names what was lost. It refuses to guess: bytes are used when a checksum over them matches, a series when its
// labels are proven, and what is lost is counted. Read Run first, then package chunkstore/blockcheck for what damage looks
// like.
package salvage
