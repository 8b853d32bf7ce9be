package ring

import "fmt"

// State is what a member says of itself. No other member can change it.
type State uint8

// The states of a member, in the order of its life. Only Active members are given new series.
const (
	// Joining is starting: it replays its log, or waits for an ordinal. It takes no writes.
	Joining State = iota
	// Active takes writes and answers queries.
	Active
	// ReadOnly is draining: it refuses writes and answers queries.
	ReadOnly
	// Leaving is on its way out and answers queries until everything that it holds is in the bucket.
	Leaving
	// Left is gone, and all that it had is in the bucket. Its entry stays for its floor.
	Left
	// Unknown is a state of a newer version: it is given nothing, and may hold data.
	Unknown
)

// stateNames are indexed by State.
var stateNames = [...]string{"JOINING", "ACTIVE", "READ_ONLY", "LEAVING", "LEFT", "UNKNOWN"}

// String returns the state as pages and gossip spell it.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("STATE(%d)", uint8(s))
}

// MarshalText implements encoding.TextMarshaler.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. A name that this version does not know becomes Unknown: members of
// a newer version are no reason to drop an entry.
func (s *State) UnmarshalText(text []byte) error {
	*s = Unknown
	for i, name := range stateNames {
		if name == string(text) {
			*s = State(i)
		}
	}
	return nil
}
