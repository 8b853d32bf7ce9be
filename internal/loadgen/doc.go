// Package loadgen sends the samples of a plan by remote write: in the order of each series, at a rate or as fast as the
// server takes them, again and again until an answer settles them, and says how that went. It decides nothing about the
// samples, checks nothing that was stored, and starts nothing before Run. Read package loadplan next for what is sent,
// loadledger for what is remembered of it, and cmd/duramenctl/load for the command.
package loadgen
