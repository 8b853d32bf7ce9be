package fanout

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/querier"
)

// errSilent means that a member had an answer to give and did not even answer a small question meanwhile. Its zone is
// replaced by another.
var errSilent = fmt.Errorf("did not answer for %s: %w", probeTimeout, duramenpb.ErrAway)

// errTooSlow means that a member has not planned in time.
var errTooSlow = fmt.Errorf("did not answer in time: %w", duramenpb.ErrAway)

// errUnwanted ends a call whose answer nobody wants any more.
var errUnwanted = errors.New("others were faster")

// retryAfter is when to send again what found no quorum, as the senders of writes are told.
const retryAfter = 2 * time.Second

// quorumError means that the ingesters of too few zones have answered. It does not unwrap: what single members said does
// not decide what becomes of the query.
type quorumError struct {
	// of all zones so many are not there, and so many need not be.
	of, away, mayMiss int
	missing           []missing
}

func (e *quorumError) Error() string {
	var b strings.Builder
	verb, may := "are", "none"
	if e.away == 1 {
		verb = "is"
	}
	if e.mayMiss > 0 {
		may = "at most " + strconv.Itoa(e.mayMiss)
	}
	fmt.Fprintf(&b, "too few ingesters answer: of %s %d %s missing, and %s may be", count(e.of, "zone"), e.away, verb, may)
	for _, m := range e.missing {
		b.WriteString("; ")
		b.WriteString(m.String())
	}
	return b.String()
}

// count writes a number of things.
func count(n int, thing string) string {
	s := strconv.Itoa(n)
	switch {
	case thing == "":
		return s
	case n == 1:
		return s + " " + thing
	default:
		return s + " " + thing + "s"
	}
}

// instant writes milliseconds since the Unix epoch.
func instant(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

// final reports that another member would say the same, so that nobody else is asked: the query itself is refused. That one
// member answers as many reads as it may says nothing of the others.
func final(err error) bool {
	if errors.Is(err, duramenpb.ErrAway) {
		return false
	}
	switch errkind.Of(err) {
	case errkind.Unavailable, errkind.Corrupt, errkind.Internal, errkind.Canceled, errkind.Limited:
		return false
	default:
		return true
	}
}

// away reports that the member itself is in trouble, and not only this tenant or query.
func away(err error) bool {
	return errors.Is(err, duramenpb.ErrAway) || errkind.Of(err) == errkind.Unavailable
}

// broken marks an answer that ended before it was whole. What the member said decides the kind, and a query that is carried
// out anew may do without the member.
func broken(member string, err error) error {
	kind := errkind.Of(err)
	if final(err) || ended(err) {
		return fmt.Errorf("ingester %s: %w", member, err)
	}
	if kind == errkind.Internal || kind == errkind.Canceled {
		kind = errkind.Unavailable
	}
	return &errkind.Error{
		Kind: kind, RetryAfter: errkind.RetryAfter(err), Err: fmt.Errorf("%w: ingester %s: %w", querier.ErrAnew, member, err),
	}
}

// brokenOff marks that a quorum which had planned with a query has not answered it.
func brokenOff(err error) error { return errkind.New(errkind.Of(err), "%w: %w", querier.ErrAnew, err) }

// ended reports that the query's own time is up, or that nobody waits for it any more.
func ended(err error) bool {
	return !errors.Is(err, duramenpb.ErrAway) &&
		(errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded))
}

// outgrown means that a member has deleted since the plan what the plan counts on.
func outgrown(member string, held duramenpb.Held) error {
	return errkind.New(errkind.Unavailable, "%w: ingester %s deleted blocks since the query was planned (floor %s, deleted up "+
		"to manifest version %d)", querier.ErrAnew, member, instant(held.Floor), held.DeletedVersion)
}
