// Package blockcheck owns the deep check of a Prometheus TSDB block: every byte of its index and chunks is read, every
// checksum compared, every sample decoded, and what one part says of another is held against it. It repairs nothing and
// goes on after a fault, so that one run names them all; memory stays in bounds however large the block is. Read
// docs/coverage.md next for what a changed byte cannot hide from, and package block for what a block consists of.
package blockcheck
