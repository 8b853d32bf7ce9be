// Package merge owns one job of the compactor: k blocks of a bucket become one, which holds each of their samples once
// and is read back, to the last byte, before its meta.json makes it a block. It refuses to choose jobs, to touch a
// manifest and to delete blocks. Read README.md for what it promises and needs, and package compactor next for who
// asks.
package merge
