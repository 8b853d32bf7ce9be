// Package compaction kills a real process while it compacts, at places of a job that a proxy before the S3 server holds it at,
// and lets another process answer queries all the while. It refuses to look into the compactor: what counts is what is
// answered, and what Prometheus' own tools say of the blocks in the end. Read package compactor/oracle for all places.
package compaction
