// Package tombstone owns what the deletions of a manifest mean for the samples of one series, and hides it from what is
// read. It refuses to guess: a deletion whose selectors cannot be read is an error, never one that hides nothing. Read
// package manifest next for which deletions concern which block, and package reader for who asks.
package tombstone
