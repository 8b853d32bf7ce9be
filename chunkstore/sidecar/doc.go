// Package sidecar sees to it that each block that is queried has a sidecar, also one that another program wrote: it reads
// the block's own index once, from begin to end, and puts what it builds beside it. It refuses to build on a nearly full
// disk, and to make a query fail because the bucket takes no writes. Read package reader next for who asks for sidecars,
// and chunkstore/index for what they hold.
package sidecar
