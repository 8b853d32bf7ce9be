package docs

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// anything stands in an answer for whatever is there.
const anything = "…"

var ulidText = regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{26}$`)

// matchJSON says in what an answer differs from what a page says, "" when in nothing. Numbers of 10⁹ and more are times
// and match each other, as do ULIDs and durations; … matches anything.
func matchJSON(want, got string) string {
	var w, g any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		return fmt.Sprintf("the page has no JSON: %v", err)
	}
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		return fmt.Sprintf("the answer is no JSON: %v: %s", err, got)
	}
	return matchValue("", w, g)
}

func matchValue(path string, want, got any) string {
	if want == anything {
		return ""
	}
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			break
		}
		return matchObject(path, w, g)
	case []any:
		g, ok := got.([]any)
		if !ok {
			break
		}
		return matchArray(path, w, g)
	case float64:
		const time = 1e9
		if g, ok := got.(float64); ok && (g == w || g >= time && w >= time || strings.HasSuffix(path, "duration_seconds")) {
			return ""
		}
	case string:
		if g, ok := got.(string); ok && (matchText(w, g) == "" || ulidText.MatchString(w) && ulidText.MatchString(g)) {
			return ""
		}
	default:
		if want == got {
			return ""
		}
	}
	return fmt.Sprintf("%s is %v instead of %v", path, got, want)
}

func matchObject(path string, want, got map[string]any) string {
	_, more := want[anything]
	for name, w := range want {
		g, ok := got[name]
		if name != anything && !ok {
			return fmt.Sprintf("%s.%s is missing", path, name)
		}
		if name != anything {
			if d := matchValue(path+"."+name, w, g); d != "" {
				return d
			}
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok && !more {
			return fmt.Sprintf("%s.%s is not on the page", path, name)
		}
	}
	return ""
}

// matchArray compares in order; … as the last element stands for any that follow.
func matchArray(path string, want, got []any) string {
	more := len(want) > 0 && want[len(want)-1] == anything && len(got) != len(want)
	if more {
		want = want[:len(want)-1]
	}
	if len(got) < len(want) || len(got) > len(want) && !more {
		return fmt.Sprintf("%s has %d elements instead of %d", path, len(got), len(want))
	}
	for i, w := range want {
		if d := matchValue(fmt.Sprintf("%s[%d]", path, i), w, got[i]); d != "" {
			return d
		}
	}
	return ""
}

// matchText compares texts but for space at the ends of lines; … stands for anything within a line, and for any lines when
// it is alone in one.
func matchText(want, got string) string {
	var b strings.Builder
	b.WriteString(`(?s)^`)
	for line := range strings.Lines(strings.TrimRight(want, " \n")) {
		line = strings.TrimRight(line, " \n")
		if line == anything {
			b.WriteString(`(?:[^\n]*\n?)*`)
			continue
		}
		b.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), anything, `[^\n]*`) + `[ ]*\n?`)
	}
	b.WriteString(`\s*$`)
	if regexp.MustCompile(b.String()).MatchString(got) {
		return ""
	}
	return fmt.Sprintf("the answer is\n%s\ninstead of\n%s", got, want)
}
