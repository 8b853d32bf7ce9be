// Package cache owns what reading keeps between queries: values in memory (Memory), bytes of objects on local disk
// (Disk), and the ranges of objects that are read through it from the bucket (Ranges). It refuses to know what the bytes
// mean: who finds them damaged says so and gets them again from the bucket. Read package reader next for what it keeps.
package cache
