// Package promql runs Prometheus' own PromQL test scripts against Duramen, in process: samples enter through the
// distributor as remote write and leave through the querier, half of them from blocks in the bucket. It starts no
// process and listens nowhere. Package e2e beside it tells the stories that need real processes.
package promql
