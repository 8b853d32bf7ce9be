package plan

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/duramendb/duramen/internal/cli"
)

// textRows is how many jobs, and how many slots, Text shows at most: a screen in all.
const textRows = 20

// Text writes the plan for people, about a screen of it: what waits and since when, what is left alone and what to do
// about it (marked "!" where somebody has to), what will be done next, and which slots are not done and have no job.
func (p *Plan) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "tenant %s, version %d of its manifest: %d blocks, at %s\n", p.Tenant, p.Version, p.Blocks, date(p.Now))
	if p.OldestUncompacted == 0 {
		b.WriteString("nothing waits\n")
	} else {
		fmt.Fprintf(&b, "%d waiting, the oldest since %s (%v)\n", p.Uncompacted(), date(p.OldestUncompacted), p.Age().Round(time.Minute))
	}
	if err := WriteSkips(&b, p.Skips); err != nil {
		return err
	}
	p.writeJobs(&b)
	p.writeSlots(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteSkips writes what is left alone for people, under a heading, and nothing when there are none.
func WriteSkips(w io.Writer, skips []Skip) error {
	if len(skips) == 0 {
		return nil
	}
	var b strings.Builder
	b.WriteString("\nleft alone:\n")
	for i := range skips {
		s := &skips[i]
		mark := " "
		if s.Blocking {
			mark = "!"
		}
		fmt.Fprintf(&b, "%s %s, %s, %s: %s\n", mark, s.Reason, times(s.MinTime, s.MaxTime), blocks(len(s.Blocks)), s.Detail)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p *Plan) writeJobs(b *strings.Builder) {
	if len(p.Jobs) == 0 {
		b.WriteString("\nno jobs\n")
		return
	}
	b.WriteString("\njobs, in their order:\n")
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for i := range p.Jobs[:min(len(p.Jobs), textRows)] {
		j := &p.Jobs[i]
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s samples\t%s\t%s\n", j.Kind, times(j.MinTime, j.MaxTime)+of(j.Labels, j.Shard),
			blocks(len(j.Blocks)), cli.Count(int64(j.InputSamples)), cli.Bytes(j.InputBytes), j.Reason)
	}
	_ = t.Flush() // into memory
	p.more(b, len(p.Jobs))
}

func (p *Plan) writeSlots(b *strings.Builder) {
	var shown []*Slot
	done, doneBlocks := 0, 0
	for i := range p.Slots {
		switch s := &p.Slots[i]; s.State {
		case StateDone:
			done++
			doneBlocks += s.Blocks
		case StateReady: // is among the jobs
		default:
			shown = append(shown, s)
		}
	}
	fmt.Fprintf(b, "\nslots and days that are done: %d, with %s\n", done, blocks(doneBlocks))
	if len(shown) > 0 {
		b.WriteString("without a job:\n")
	}
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, s := range shown[:min(len(shown), textRows)] {
		since := ""
		if s.Since != 0 {
			since = "  waits since " + date(s.Since)
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s samples\t%s%s\n", s.State, times(s.MinTime, s.MaxTime)+of(s.Labels, s.Shard),
			blocks(s.Blocks), cli.Count(int64(s.Samples)), cli.Bytes(s.Bytes), since)
	}
	_ = t.Flush() // into memory
	p.more(b, len(shown))
}

func (p *Plan) more(b *strings.Builder, n int) {
	if n > textRows {
		fmt.Fprintf(b, "  and %d more\n", n-textRows)
	}
}

// of says which blocks are meant beside the time.
func of(labels map[string]string, shard string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, fmt.Sprintf("%s=%q", name, labels[name]))
	}
	if shard != "" {
		parts = append(parts, "shard "+shard)
	}
	if len(parts) == 0 {
		return ""
	}
	return " {" + strings.Join(parts, ", ") + "}"
}

// times writes a range: the day once when it ends on the same day or at its end.
func times(mint, maxt int64) string {
	from, to := time.UnixMilli(mint).UTC(), time.UnixMilli(maxt).UTC()
	switch {
	case to.Sub(from) == 24*time.Hour && from.Equal(from.Truncate(24*time.Hour)):
		return from.Format(time.DateOnly)
	case from.Format(time.DateOnly) == to.Format(time.DateOnly):
		return from.Format("2006-01-02 15:04") + " - " + to.Format("15:04")
	default:
		return from.Format("2006-01-02 15:04") + " - " + to.Format("2006-01-02 15:04")
	}
}

func date(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04") }

func blocks(n int) string {
	if n == 1 {
		return "1 block"
	}
	return fmt.Sprintf("%d blocks", n)
}
