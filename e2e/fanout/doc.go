// Package fanout compares what a querier gets of six ingesters in three zones with one ingester that has everything, in
// process but over real gRPC: samples of all kinds, each in two or three replicas, while zones go away. It refuses to know
// who writes: samples go to replicas as a quorum would leave them. Read package querier/fanout next for what it tests.
package fanout
