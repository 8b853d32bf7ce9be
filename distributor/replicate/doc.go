// Package replicate owns the way of a batch from the distributor to the replicas of its series: where each series goes,
// what is sent to whom, and the verdict on every sample from the answers. It refuses to call a sample stored that less
// than a quorum of its replicas has, keeps no samples beyond a bounded time and number of bytes, and knows no transport.
// Read package ring next for placement and verdicts, and package ingester/ingestrpc for how a section travels.
package replicate
