package ring

// Outcome is what the answers of the replicas mean for one sample.
type Outcome uint8

// The outcomes of a write. Only Undecided can change with further answers.
const (
	// Undecided waits for further answers.
	Undecided Outcome = iota
	// Stored is acknowledged: at least a quorum has it.
	Stored
	// Refused is permanent: enough replicas have answered, and too many of them will never take it.
	Refused
	// NoQuorum is a lack of answers: the sender must try again.
	NoQuorum
)

// outcomeNames are indexed by Outcome.
var outcomeNames = [...]string{"undecided", "stored", "refused", "no quorum"}

// String names the outcome.
func (o Outcome) String() string { return outcomeNames[o] }

// Verdict decides about one sample from how many of its replicas stored it, refused it for ever, failed or cannot be
// reached (transient), and have yet to answer (pending). replicas is the number that it was meant for; those not
// counted otherwise are transient.
//
// A sample that less than a quorum stored is refused only when a quorum has given an answer that stays. Then one
// bad sample does not block its sender until a dead zone comes back, and a lack of answers is never taken for a refusal.
// It is decided as soon as no further answer can change it.
func Verdict(stored, refused, transient, pending, replicas, quorum int) Outcome {
	pending = min(max(pending, 0), replicas-stored-refused-transient)
	switch {
	case stored >= quorum:
		return Stored
	case stored+refused+pending < quorum:
		return NoQuorum
	case stored+pending >= quorum:
		return Undecided // it may yet be stored
	case stored+refused >= quorum:
		return Refused
	default:
		return Undecided
	}
}
