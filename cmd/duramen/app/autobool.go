package app

import (
	"fmt"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// autoBool is a setting that is true, false, or left to the rest of the settings.
type autoBool struct {
	set, value bool
}

const autoText = "auto"

// or returns what was set, and otherwise what is passed.
func (b autoBool) or(automatic bool) bool {
	if b.set {
		return b.value
	}
	return automatic
}

// String implements flag.Value.
func (b autoBool) String() string {
	if !b.set {
		return autoText
	}
	return strconv.FormatBool(b.value)
}

// Set implements flag.Value.
func (b *autoBool) Set(s string) error {
	if s == autoText {
		*b = autoBool{}
		return nil
	}
	value, err := strconv.ParseBool(s)
	if err != nil {
		return fmt.Errorf("%q is neither true, false nor auto", s)
	}
	*b = autoBool{set: true, value: value}
	return nil
}

// IsBoolFlag lets the flag stand alone for true.
func (*autoBool) IsBoolFlag() bool { return true }

// Get implements flag.Getter.
func (b *autoBool) Get() any { return *b }

// UnmarshalYAML implements yaml.Unmarshaler.
func (b *autoBool) UnmarshalYAML(node *yaml.Node) error { return b.Set(node.Value) }

// MarshalYAML implements yaml.Marshaler.
func (b autoBool) MarshalYAML() (any, error) {
	if !b.set {
		return autoText, nil
	}
	return b.value, nil
}
