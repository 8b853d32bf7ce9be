// Package faultproxy owns what stands between a client and a server in tests: an HTTP proxy on loopback before an S3 server,
// which spoils requests as a test has planned and remembers all of them, and a cable that can fall silent or be cut. It
// refuses to know what a client ought to do about a fault, and to be used outside tests. Read package objectstore for the
// server behind the proxy, and fault.go here for what can go wrong.
package faultproxy
