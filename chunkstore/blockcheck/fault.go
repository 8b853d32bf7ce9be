package blockcheck

import (
	"fmt"
	"strings"
)

// Fault is one thing that is wrong with a block.
type Fault struct {
	// File is the object's name relative to the block, such as chunks/000001.
	File string `json:"file"`
	// Offset is the byte in the file, -1 where the fault is the file's as a whole.
	Offset int64 `json:"offset"`
	// Series names the series that suffers, empty where it is none or not known.
	Series string `json:"series,omitempty"`
	// Text says what is wrong.
	Text string `json:"text"`
}

// String writes the fault in one line.
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Offset >= 0 {
		fmt.Fprintf(&b, " at byte %d", f.Offset)
	}
	if f.Series != "" {
		b.WriteString(", series " + f.Series)
	}
	return b.String() + ": " + f.Text
}
