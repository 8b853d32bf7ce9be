package ring

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Bounds of what other processes may send. A real entry has about 400 bytes.
const (
	maxEntryBytes = 64 << 10
	maxIDBytes    = 255
	// maxEpoch leaves room for epochs that beat one that somebody made up.
	maxEpoch = 1 << 53
)

// Entry is one line of the cluster's table: a member in its own words, or the note that it is forgotten.
type Entry struct {
	// Member is the zero value but for its ID when Forgotten is set.
	Member Member
	// Forgotten, when not nil, ends the member's epochs up to its own.
	Forgotten *Tombstone
	// raw are the bytes that the entry came as, so that fields of a newer version travel on. nil: made here.
	raw []byte
}

// Tombstone ends a member that does not come back by itself. A member that does come back has a higher epoch, which
// beats it.
type Tombstone struct {
	ID string `json:"-"`
	// Epoch is the last epoch that ends.
	Epoch uint64 `json:"epoch"`
	// At is when it was written, in milliseconds, by the clock of who wrote it.
	At int64 `json:"at"`
	// Zone is the zone of who is forgotten, Floor as Member.Floor.
	Zone  string `json:"zone,omitempty"`
	Floor int64  `json:"floor,omitempty"`
	// LossAccepted says that an operator gave up what only this member held. A member that finds such a note about
	// itself begins a new epoch without LostBefore.
	LossAccepted bool `json:"loss_accepted,omitempty"`
}

// MemberEntry returns the entry of a member that announces itself.
func MemberEntry(m Member) Entry { return Entry{Member: m} }

// ForgetEntry returns the entry that ends a member.
func ForgetEntry(t Tombstone) Entry { return Entry{Member: Member{ID: t.ID}, Forgotten: &t} }

// ID names whom the entry is about.
func (e *Entry) ID() string { return e.Member.ID }

// Epoch is the epoch that the entry announces or ends.
func (e *Entry) Epoch() uint64 {
	if e.Forgotten != nil {
		return e.Forgotten.Epoch
	}
	return e.Member.Epoch
}

// wireEntry is an entry as JSON: the member's fields, and forgotten beside them.
type wireEntry struct {
	Member

	Forgotten *Tombstone `json:"forgotten,omitempty"`
}

// wireTombstone is what is left of the fields when there is no member.
type wireTombstone struct {
	ID        string     `json:"id"`
	Forgotten *Tombstone `json:"forgotten"`
}

// MarshalJSON implements json.Marshaler. An entry that came from elsewhere and was not changed is written as it came.
func (e Entry) MarshalJSON() ([]byte, error) {
	if e.raw != nil {
		return e.raw, nil
	}
	if e.Forgotten != nil {
		return json.Marshal(wireTombstone{ID: e.Member.ID, Forgotten: e.Forgotten})
	}
	return json.Marshal(wireEntry{Member: e.Member})
}

// UnmarshalJSON implements json.Unmarshaler. It keeps a copy of data. An entry that names nobody is an error.
func (e *Entry) UnmarshalJSON(data []byte) error {
	if len(data) > maxEntryBytes {
		return fmt.Errorf("ring entry of %d bytes is above the limit of %d", len(data), maxEntryBytes)
	}
	w := wireEntry{Member: Member{Ordinal: NoOrdinal}}
	if err := json.Unmarshal(data, &w); err != nil {
		return fmt.Errorf("decode ring entry: %w", err)
	}
	if err := validID(w.ID); err != nil {
		return err
	}
	if w.Ordinal < NoOrdinal || w.Ordinal > maxOrdinal {
		return fmt.Errorf("ring entry of %q: ordinal %d is outside %d to %d", w.ID, w.Ordinal, NoOrdinal, maxOrdinal)
	}
	if w.Epoch > maxEpoch || w.Forgotten != nil && w.Forgotten.Epoch > maxEpoch {
		return fmt.Errorf("ring entry of %q: its epoch is above %d", w.ID, maxEpoch)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return fmt.Errorf("decode ring entry: %w", err)
	}
	*e = Entry{Member: w.Member, raw: compact.Bytes()}
	if w.Forgotten != nil {
		w.Forgotten.ID = w.ID
		e.Member, e.Forgotten = Member{ID: w.ID}, w.Forgotten
	}
	return nil
}

func validID(id string) error {
	if id == "" || len(id) > maxIDBytes || !utf8.ValidString(id) {
		return fmt.Errorf("ring entry: an instance id has 1 to %d bytes of UTF-8, this one has %d", maxIDBytes, len(id))
	}
	for _, r := range id {
		if unicode.IsControl(r) {
			return fmt.Errorf("ring entry: instance id %q has a control character", id)
		}
	}
	return nil
}

// newer reports whether a replaces b: a higher epoch, then forgotten before announced, then the counter. What is still
// equal can only be two processes with one identity; then the bytes decide, so that all members agree on one of them.
func newer(a, b *Entry) bool {
	if a.Epoch() != b.Epoch() {
		return a.Epoch() > b.Epoch()
	}
	if (a.Forgotten != nil) != (b.Forgotten != nil) {
		return a.Forgotten != nil
	}
	if a.Forgotten == nil && a.Member.Counter != b.Member.Counter {
		return a.Member.Counter > b.Member.Counter
	}
	if a.Forgotten != nil && a.Forgotten.At != b.Forgotten.At {
		return a.Forgotten.At > b.Forgotten.At
	}
	return bytes.Compare(a.bytes(), b.bytes()) > 0
}

// bytes is the entry as it travels; nil when it cannot be encoded, which its fields rule out.
func (e *Entry) bytes() []byte {
	if e.raw != nil {
		return e.raw
	}
	data, err := e.MarshalJSON()
	if err != nil {
		return nil
	}
	return data
}
