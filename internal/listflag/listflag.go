// Package listflag owns flags whose value is a list: commas separate, and several occurrences on one command line add
// up. It does not know what the parts mean, and their owner checks them. Read cmd/duramen/app next for the layers of
// settings that a list comes from.
package listflag

import "strings"

// Value is a flag.Value over a list. A layer of settings that has it replaces what the layer below said.
type Value struct {
	list *[]string
	// adding is set while the occurrences of one layer add up; see NextLayer.
	adding bool
}

// New returns the flag of a list, which it sets to an empty one that is not nil.
func New(list *[]string) *Value {
	*list = []string{}
	return &Value{list: list}
}

// String implements flag.Value.
func (v *Value) String() string {
	if v.list == nil {
		return ""
	}
	return strings.Join(*v.list, ",")
}

// Set implements flag.Value.
func (v *Value) Set(s string) error {
	if !v.adding {
		*v.list = []string{}
	}
	v.adding = true
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*v.list = append(*v.list, part)
		}
	}
	return nil
}

// NextLayer makes the next Set replace the list.
func (v *Value) NextLayer() { v.adding = false }
