// Package migration holds the stories of moving between Duramen and Prometheus, Thanos and Cortex: a bucket that one of them
// has written is opened by the other, and both have to answer the same. It refuses to look into a bucket: what counts is the
// answers. With -e2e.peers the real programs run; else testdata has what they once wrote. Read docs/migration.md next.
package migration
