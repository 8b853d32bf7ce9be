// Package ingester owns the recent data of all tenants: one Prometheus TSDB each, from the append of a sample over the
// block cut from it to the local deletion of that block once the bucket has it. It refuses to acknowledge what it does
// not hold and to answer with a part of what it holds. Read package querier next for how its answers are merged with
// those of the bucket, and the README for what it promises, keeps on disk and does when something fails.
package ingester
