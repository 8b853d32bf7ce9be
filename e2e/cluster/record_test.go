package cluster

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRecord: the gap is the longest time without a success, borders included, whatever the order of the notes; failures are
// told apart by time and target.
func TestRecord(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(1_000_000).Add(time.Duration(ms) * time.Millisecond) }
	var r Record
	r.add(Attempt{Begin: at(300), Took: 100 * time.Millisecond, OK: true, Target: "b"})
	r.add(Attempt{Begin: at(0), Took: 10 * time.Millisecond, OK: true, Target: "a"})
	r.add(Attempt{Begin: at(20), Took: 180 * time.Millisecond, Status: 503, Target: "a"})
	r.add(Attempt{Begin: at(900), Took: 200 * time.Millisecond, OK: true, Target: "b"}) // ends behind the span

	s := r.Between(at(0), at(1000))
	require.Equal(t, 2, s.OK)
	require.Equal(t, 600*time.Millisecond, s.Gap, "from the last success to the end")
	require.Equal(t, 100*time.Millisecond, s.Slowest)
	require.Len(t, s.Failed, 1)
	require.Contains(t, s.First(), "a after 180ms: 503")

	require.Equal(t, 390*time.Millisecond, r.Between(at(0), at(410)).Gap, "between two successes")
	require.Equal(t, 1, r.Of("a").Between(at(0), at(1000)).OK)
	require.Empty(t, r.Of("b").Between(at(0), at(1000)).Failed)
	require.Equal(t, 3, r.succeeded())
}
