package ring

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestVerdict goes through all ways in which up to nine replicas can have answered, and asks for rule by rule.
func TestVerdict(t *testing.T) {
	for replicas := 1; replicas <= 9; replicas++ {
		quorum := replicas/2 + 1
		answers(replicas, func(stored, refused, transient, pending int) {
			got := Verdict(stored, refused, transient, pending, replicas, quorum)
			require.Equal(t, slowVerdict(stored, refused, transient, pending, quorum), got,
				"stored %d refused %d transient %d pending %d of %d", stored, refused, transient, pending, replicas)
		})
	}
}

func answers(replicas int, f func(stored, refused, transient, pending int)) {
	for stored := 0; stored <= replicas; stored++ {
		for refused := 0; stored+refused <= replicas; refused++ {
			for transient := 0; stored+refused+transient <= replicas; transient++ {
				f(stored, refused, transient, replicas-stored-refused-transient)
			}
		}
	}
}

// slowVerdict is the rule for final answers, and for others what all possible ends have in common.
func slowVerdict(stored, refused, transient, pending, quorum int) Outcome {
	if stored >= quorum {
		return Stored
	}
	if pending == 0 {
		if transient == 0 || stored+refused >= quorum {
			return Refused
		}
		return NoQuorum
	}
	a := slowVerdict(stored+1, refused, transient, pending-1, quorum)
	b := slowVerdict(stored, refused+1, transient, pending-1, quorum)
	c := slowVerdict(stored, refused, transient+1, pending-1, quorum)
	if a == b && b == c {
		return a
	}
	return Undecided
}

func TestVerdictTable(t *testing.T) {
	for _, c := range []struct {
		stored, refused, transient, pending int
		want                                Outcome
	}{
		{0, 0, 0, 3, Undecided},
		{1, 0, 0, 2, Undecided},
		{2, 0, 0, 1, Stored},
		{2, 1, 0, 0, Stored},
		{2, 0, 1, 0, Stored},
		{1, 2, 0, 0, Refused},
		{0, 3, 0, 0, Refused},
		{1, 1, 1, 0, Refused},   // one is away: the refusal does not wait for it
		{0, 2, 1, 0, Refused},   // the same
		{0, 2, 0, 1, Refused},   // whatever the third says, two will never have it
		{1, 1, 0, 1, Undecided}, // the third may store it
		{1, 0, 2, 0, NoQuorum},
		{0, 1, 2, 0, NoQuorum}, // one refusal is no quorum: it may be too old there and not elsewhere
		{0, 0, 2, 1, NoQuorum}, // already
		{0, 0, 3, 0, NoQuorum},
	} {
		require.Equal(t, c.want, Verdict(c.stored, c.refused, c.transient, c.pending, 3, 2), "%+v", c)
	}
	require.Equal(t, NoQuorum, Verdict(1, 0, 0, 0, 1, 2), "a replica set below quorum acknowledges nothing")
	require.Equal(t, NoQuorum, Verdict(1, 0, 0, 0, 3, 2), "replicas that nobody counted did not answer")
	require.Equal(t, Stored, Verdict(1, 0, 0, 0, 1, 1))
	require.Equal(t, Refused, Verdict(0, 1, 0, 0, 1, 1))
}
