package s3

import "log/slog"

// masked is what is printed in place of a secret that is set.
const masked = "<secret>"

// Secret is a string that does not show itself: not in logs, not in a printed or marshalled configuration. Convert it
// to string to read it.
type Secret string

// String implements fmt.Stringer and, with Set, flag.Value.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return masked
}

// GoString implements fmt.GoStringer, for %#v.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler, which JSON uses.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML implements yaml.Marshaler.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// Set implements flag.Value.
func (s *Secret) Set(value string) error {
	*s = Secret(value)
	return nil
}
