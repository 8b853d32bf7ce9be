// Package secret owns settings that must not be seen: keys, passwords, headers with tokens. It refuses to show them in
// logs and in a printed configuration, and does not encrypt anything. Read cmd/duramen/app next for where settings are
// printed.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// Masked is what is printed in place of a secret that is set.
const Masked = "<secret>"

// Text is a string that does not show itself: not in logs, not in a printed or marshalled configuration. Convert it to
// string to read it.
type Text string

// String implements fmt.Stringer and, with Set, flag.Value.
func (s Text) String() string {
	if s == "" {
		return ""
	}
	return Masked
}

// Format implements fmt.Formatter, so that no verb shows more than String.
func (s Text) Format(f fmt.State, verb rune) {
	if verb == 'q' || verb == 'v' && f.Flag('#') {
		_, _ = fmt.Fprintf(f, "%q", s.String()) // the state keeps what it is given
		return
	}
	_, _ = io.WriteString(f, s.String())
}

// LogValue implements slog.LogValuer.
func (s Text) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler, which JSON uses.
func (s Text) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML implements yaml.Marshaler.
func (s Text) MarshalYAML() (any, error) { return s.String(), nil }

// Set implements flag.Value.
func (s *Text) Set(value string) error {
	*s = Text(value)
	return nil
}
