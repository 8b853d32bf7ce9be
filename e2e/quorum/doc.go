// Package quorum runs distributors and real ingesters of a small cluster in process, with gRPC over loopback between
// them: ingesters are killed, restarted, hung, added and drained under load, and everything that was acknowledged has to
// be on a quorum of zones. It starts no process. Package e2e/cluster beside it tells the stories of whole processes.
package quorum
