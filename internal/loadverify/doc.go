// Package loadverify proves that a server kept a run of load: it computes every sample again and reads it back, through
// queries, through remote read, or both. Acknowledged samples have to be there once with their exact bits, refused and
// unknown ones once or not at all, and nothing else may bear the run's label. It sends nothing, and an answer that cannot
// be had is an error, never a verdict. Read package loadledger next for what is known of each sample, and
// cmd/duramenctl/verify for the command.
package loadverify
