package app

import "strings"

// listValue is a flag whose value is a list: commas separate, and several occurrences on one command line add up. A
// layer of settings that has it replaces what the layer below said.
type listValue struct {
	list *[]string
	// adding is set while the occurrences of one layer add up; see nextLayer.
	adding bool
}

// String implements flag.Value.
func (v *listValue) String() string {
	if v.list == nil {
		return ""
	}
	return strings.Join(*v.list, ",")
}

// Set implements flag.Value.
func (v *listValue) Set(s string) error {
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

// nextLayer makes the next Set replace the list.
func (v *listValue) nextLayer() { v.adding = false }
