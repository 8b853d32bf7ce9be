// Package rawblock owns how the index and the chunk files of a Prometheus TSDB block lie in bytes, for those who read
// them front to back without holding them: values, checksums, the table of contents, the chunks of a series. It reads no
// file and judges nothing. Read package blockcheck next for a reader that judges everything.
package rawblock
