// Package querier owns the reading of a tenant's samples: it plans each query over recent data and the blocks of one
// manifest version, merges both exactly, and runs Prometheus' own engine and HTTP API on top. It refuses to answer in
// part: what cannot be read whole is an error with a kind. Read duramenpb.View next for the contract with ingesters,
// and package chunkstore/reader for the blocks.
package querier
