package countbucket

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Kind is what an object is for, as its key says: "meta", "index", "sidecar", "chunks" and "manifest", else "other".
func (op Op) Kind() string {
	_, rest, _ := strings.Cut(op.Key, "/")
	folder, name, _ := strings.Cut(rest, "/")
	switch {
	case folder == "duramen" && strings.HasPrefix(name, "manifest/"):
		return "manifest"
	case name == "meta.json":
		return "meta"
	case name == "index":
		return "index"
	case name == "duramen.idx":
		return "sidecar"
	case strings.HasPrefix(name, "chunks/"):
		return "chunks"
	default:
		return "other"
	}
}

// Block is the folder of the block to which the object belongs: tenant and ULID, as far as the key has them.
func (op Op) Block() string {
	if parts := strings.SplitN(op.Key, "/", 3); len(parts) == 3 {
		return parts[0] + "/" + parts[1]
	}
	return ""
}

// Read reports whether the operation reads an object.
func (op Op) Read() bool { return op.Method == "Get" || op.Method == "GetRange" }

// Ops are operations in the order in which they began.
type Ops []Op

// Where returns the operations for which keep is true.
func (ops Ops) Where(keep func(Op) bool) Ops {
	var out Ops
	for _, op := range ops {
		if keep(op) {
			out = append(out, op)
		}
	}
	return out
}

// Reads returns the operations that read an object.
func (ops Ops) Reads() Ops { return ops.Where(Op.Read) }

// Kind returns the operations on objects of one kind.
func (ops Ops) Kind(kind string) Ops { return ops.Where(func(op Op) bool { return op.Kind() == kind }) }

// ByBlock returns the operations by the block that they belong to.
func (ops Ops) ByBlock() map[string]Ops {
	out := map[string]Ops{}
	for _, op := range ops {
		out[op.Block()] = append(out[op.Block()], op)
	}
	return out
}

// Bytes returns how many bytes all of them moved.
func (ops Ops) Bytes() (n int64) {
	for _, op := range ops {
		n += op.Bytes
	}
	return n
}

// Waves returns how many round trips followed one another: an operation is in the wave after the latest wave of which an
// operation had ended before it began, so that it may have waited for that one's answer.
//
// This is an upper bound of what depends on what. Of operations that were meant to run together, one may begin late
// because the machine was busy; with a latency that is long beside such delays, or in the fake time of testing/synctest,
// that does not happen.
func (ops Ops) Waves() int {
	waves := 0
	for _, w := range ops.waves() {
		waves = max(waves, w)
	}
	return waves
}

// waves returns the wave of each operation.
func (ops Ops) waves() []int {
	type event struct{ at, op int }
	events := make([]event, 0, 2*len(ops))
	for i, op := range ops {
		events = append(events, event{op.Began, i})
		if op.Ended > 0 {
			events = append(events, event{op.Ended, i})
		}
	}
	slices.SortFunc(events, func(a, b event) int { return a.at - b.at })
	out, ended := make([]int, len(ops)), 0
	for _, e := range events {
		if e.at == ops[e.op].Began {
			out[e.op] = ended + 1
		} else {
			ended = max(ended, out[e.op])
		}
	}
	return out
}

// ReadRatio is how many bytes the reads moved for each byte that was needed.
func (ops Ops) ReadRatio(needed int64) float64 {
	if needed == 0 {
		return math.Inf(1)
	}
	return float64(ops.Reads().Bytes()) / float64(needed)
}

// String lists the operations with their waves, one a line, for the message of a test that failed.
func (ops Ops) String() string {
	var b strings.Builder
	waves := ops.waves()
	for i, op := range ops {
		fmt.Fprintf(&b, "wave %d: %s %s", waves[i], op.Method, op.Key)
		if op.Method == "GetRange" {
			fmt.Fprintf(&b, " [%d, +%d)", op.Offset, op.Length)
		}
		fmt.Fprintf(&b, " %d bytes", op.Bytes)
		if op.Failed {
			b.WriteString(", failed")
		}
		b.WriteByte('\n')
	}
	return b.String()
}
