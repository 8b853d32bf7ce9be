// Package ingestrpc owns how ingesters are reached: what is pushed to them and what is read of them, over gRPC or in this
// process. It refuses to choose among ingesters and to repeat what one of them refused. Read package ingester next for
// what stands behind it, and ../docs/push-protocol.md and ../docs/read-protocol.md for the bytes.
package ingestrpc
