package docs

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// page is a document with its examples.
type page struct {
	name   string
	blocks []block
	// seeds are samples that the examples rely on, from comments such as <!-- seeded: team-a up{job="node"} 1 -->.
	seeds []seed
}

// block is a fenced block.
type block struct {
	line     int // of the opening fence, from 1
	language string
	text     string
	// notRun and notCompared are the reasons of a comment <!-- not run: … --> or <!-- not compared: … --> above the fence.
	notRun, notCompared string
	// story, of a comment <!-- run in: … -->, is the story that runs the block instead.
	story string
	// follows is set when nothing but blank lines and comments lie between the block before and this one.
	follows bool
}

// seed is a sample that exists before the examples run, with the present time.
type seed struct{ tenant, series, value string }

var (
	directive = regexp.MustCompile(`^<!-- ([a-z ]+): (.+) -->$`)
	seedText  = regexp.MustCompile(`^(\S+) (\S+) (\S+)$`)
)

// readPage reads a document. A fence that does not end, and a comment that is almost one of ours, are errors.
func readPage(path, name string) (*page, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := &page{name: name}
	var next block // what is known of the block to come
	var text strings.Builder
	open, quiet, n := false, false, 0
	for line := range strings.Lines(string(data)) {
		n++
		trimmed := strings.TrimSpace(line)
		switch fence, isFence := strings.CutPrefix(trimmed, "```"); {
		case isFence && !open:
			open = true
			next.line, next.language, next.follows = n, fence, quiet
			text.Reset()
		case isFence:
			open, quiet = false, true
			next.text = text.String()
			p.blocks = append(p.blocks, next)
			next = block{}
		case open:
			text.WriteString(line)
		case strings.HasPrefix(trimmed, "<!--"):
			if err := p.direct(&next, trimmed); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", name, n, err)
			}
		case trimmed != "":
			if next != (block{}) {
				return nil, fmt.Errorf("%s:%d: the comment above belongs right above a block", name, n)
			}
			quiet = false
		}
	}
	if open {
		return nil, fmt.Errorf("%s:%d: the block does not end", name, next.line)
	}
	return p, nil
}

// direct applies a comment. Those without a colon, or with other words, are left alone.
func (p *page) direct(next *block, comment string) error {
	m := directive.FindStringSubmatch(comment)
	if m == nil {
		for _, word := range []string{"not run", "not compared", "seeded", "run in"} {
			if strings.Contains(comment, word) {
				return fmt.Errorf("%s: write it as <!-- %s: … --> with a reason, in one line", comment, word)
			}
		}
		return nil
	}
	switch m[1] {
	case "not run":
		next.notRun = m[2]
	case "run in":
		next.story = m[2]
	case "not compared":
		next.notCompared = m[2]
	case "seeded":
		s := seedText.FindStringSubmatch(m[2])
		if s == nil {
			return fmt.Errorf("%s: write tenant, series and value", comment)
		}
		p.seeds = append(p.seeds, seed{s[1], s[2], s[3]})
	}
	return nil
}
