// Package identity owns the answer to "is this the bucket that was used before?": a small object with a random ID, written
// once into each bucket, and a guard that lets nobody near a bucket with another ID or with none. It refuses to know where a
// process keeps the ID and who else uses the bucket: both are told to it. Read package bucket next for what a bucket is.
package identity
