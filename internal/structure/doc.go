// Package structure holds the tests that keep the repository in shape: every package says what it is, imports point
// downward, nothing registers itself behind a caller's back, links in documents lead somewhere. It has no code that
// runs in a process, and no taste: what a linter can judge is in .golangci.yml. Read docs/architecture.md next for
// the shape that is kept.
package structure
