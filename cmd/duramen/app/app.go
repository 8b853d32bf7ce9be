// Package app owns how the process is put together: the tree of settings, the wiring table, the HTTP server with its
// pages, and the order of start and stop. It refuses to hold any of the work itself. Read wiring.go first, then the
// package of the service that you came for.
package app

//go:generate sh -c "go run .. -config.reference > ../../../docs/configuration.md"
