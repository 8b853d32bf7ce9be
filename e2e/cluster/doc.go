// Package cluster starts clusters of real processes on loopback, or on hosts of their own made of network namespaces,
// writes to them and asks them all the while, and tells of each answer whether it was right: what was acknowledged is there
// once, what was refused or not answered once or not at all, and nothing else ever. It knows no secrets of a process: it
// signals, it cuts cables and it speaks HTTP. Read the stories beside it next.
package cluster
