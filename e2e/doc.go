// Package e2e tells stories with real processes on loopback: a Prometheus that writes while Duramen is killed, a disk that
// fills, a shutdown under load. It has no code but tests, and judges by ledgers: what was acknowledged is there exactly
// once, what was refused or got no answer is there once or not at all, what was never sent is not there. Read
// ledger_test.go first, then any story.
package e2e
