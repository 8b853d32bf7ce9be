package replicate

import "errors"

var (
	// errClosed means that the process shuts down: ask another distributor.
	errClosed = errors.New("distributor is shutting down")
	// errUndecided means that a verdict was asked for too early: a bug.
	errUndecided = errors.New("verdict on a sample that is not decided")
	// errUnaccounted means that an ingester's verdict does not account for each sample of the section once.
	errUnaccounted = errors.New("verdict of the ingester does not account for every sample")
	// errLostTwice means that an ingester did not know a series that came with labels.
	errLostTwice = errors.New("ingester asks for labels that it was sent")
	// errBehind means that a member answers too slowly and has too much on its way.
	errBehind = errors.New("too many bytes are unanswered")
	// errInflight means that too much is on its way to ingesters in all.
	errInflight = errors.New("too many bytes are on their way to ingesters (-replicate.max-inflight-bytes)")
)
