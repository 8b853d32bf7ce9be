// Package block owns one Prometheus TSDB block in the bucket: its keys, its meta.json, its upload, the check that it is
// complete, and its deletion. It refuses blocks of an unknown format and never replaces a complete block. Read package
// manifest next for how a block that was uploaded becomes one that queries see.
package block
