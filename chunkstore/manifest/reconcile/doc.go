// Package reconcile owns what keeps a tenant's manifest and the objects in its folder in step: blocks whose announcement
// was lost, blocks and marks of peers, objects that nobody needs any more, and the files that tell peers what there is.
// It refuses to guess: of what it cannot verify it says how much there is, and leaves it as it is. Read package manifest
// for the changes that it makes, and docs/manifest.md there, "Reconciliation", for the rules.
package reconcile
