// Package faultproxy owns an HTTP proxy on loopback that stands between a client and an S3 server, spoils requests as a
// test has planned, and remembers all of them. It refuses to know what a client ought to do about a fault, and to be used
// outside tests. Read package objectstore for the server behind it, and fault.go here for what can go wrong.
package faultproxy
