// Package lifecycle owns the test of the promise that an acknowledged sample is visible to the next query at every
// moment of its life: in the head, cut, shipped, listed, deleted locally, and across restarts, crashes, clock jumps and
// outages of the bucket. It refuses fakes: ingester, manifest owner, block reader and querier are the real ones, in one
// process; only the clock and the bucket's faults are the test's. Read package querier for the rule under test.
package lifecycle
