// Package plan decides what a compactor has to do for one tenant: a pure function of a version of the manifest, the time and
// limits, which asks nobody and gives equal plans for equal arguments. It refuses to run anything, and it never plans work
// whose result would have to be worked on again: each job leaves fewer blocks, or fewer deletions to work in, than it found.
// Read docs/compaction.md next for the rules in words, and package compactor for who runs the jobs.
package plan
