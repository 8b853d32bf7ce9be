package distributor

import (
	"fmt"
	"strings"

	"github.com/duramendb/duramen/duramenpb"
)

// reasonBadReference is a series of format 2.0 whose label references name no symbols.
const reasonBadReference duramenpb.Reason = "invalid_label_reference"

// labelReasons are the reasons that a series' labels alone decide, so that the cache may keep the verdict.
var labelReasons = []duramenpb.Reason{
	duramenpb.ReasonMissingName, duramenpb.ReasonInvalidLabelName, duramenpb.ReasonInvalidLabelValue,
	duramenpb.ReasonDuplicateLabel, duramenpb.ReasonTooManyLabels, duramenpb.ReasonLabelNameTooLong,
	duramenpb.ReasonLabelValueTooLong,
}

// maxExample bounds the text of one example in an answer, in bytes: Prometheus logs 512 bytes of it.
const maxExample = 1024

// refusals counts what of a request is refused for good, by reason, with one example each.
type refusals struct {
	list    []refusal
	samples int
}

type refusal struct {
	reason  duramenpb.Reason
	samples int
	example string
}

func (r *refusals) reset() {
	clear(r.list)
	*r = refusals{list: r.list[:0]}
}

// add counts samples refused for a reason; example is asked for the first time that the reason occurs.
func (r *refusals) add(reason duramenpb.Reason, samples int, example func() string) {
	if samples == 0 {
		return
	}
	r.samples += samples
	for i := range r.list {
		if r.list[i].reason == reason {
			r.list[i].samples += samples
			return
		}
	}
	r.list = append(r.list, refusal{reason, samples, shorten(example())})
}

func shorten(s string) string {
	if len(s) <= maxExample {
		return s
	}
	return strings.ToValidUTF8(s[:maxExample], "") + "…"
}

// text is the answer to the sender: counts per reason, one example each, and what became of the rest.
func (r *refusals) text(sent int) string {
	var b strings.Builder
	if r.samples == sent {
		fmt.Fprintf(&b, "all %d samples are refused for good\n", sent)
	} else {
		fmt.Fprintf(&b, "%d of %d samples are refused for good, the rest is stored\n", r.samples, sent)
	}
	for _, f := range r.list {
		fmt.Fprintf(&b, "%s: %d samples, for example %s\n", f.reason, f.samples, f.example)
	}
	return b.String()
}
