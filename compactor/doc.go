// Package compactor owns what becomes of a tenant's blocks in the bucket: they are merged, expire, and are rewritten
// without what was deleted, each of it by one swap in the manifest after its outcome was verified. It refuses to halt:
// what fails is one job of one slot of one tenant, it is named with its reason, and everything else goes on. Read package
// plan for what is to be done and package merge for how it is done, and docs/compaction.md for what it means to operators.
package compactor
