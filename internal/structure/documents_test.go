package structure

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)(?:\s+"[^"]*")?\)`)
	fenced  = regexp.MustCompile("(?ms)^[ \t]*```.*?^[ \t]*```")
	inline  = regexp.MustCompile("`[^`\n]*`")
	heading = regexp.MustCompile(`(?m)^#+ +(.+?)\s*$`)
	target  = regexp.MustCompile(`\bmake ([a-z0-9]+)\b`)
)

// TestLinksLeadSomewhere checks that relative links in documents name files that exist, and anchors headings of theirs.
func TestLinksLeadSomewhere(t *testing.T) {
	files(t, func(file string, data []byte) {
		if !strings.HasSuffix(file, ".md") {
			return
		}
		text := inline.ReplaceAllString(fenced.ReplaceAllString(string(data), ""), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			name, anchor, _ := strings.Cut(m[1], "#")
			to := file
			if name != "" {
				to = path.Join(path.Dir(file), name)
			}
			content, err := os.ReadFile(filepath.Join(root, to))
			if info, statErr := os.Stat(filepath.Join(root, to)); statErr == nil && info.IsDir() {
				continue
			}
			require.NoError(t, err, "%s links to %s", file, m[1])
			if anchor != "" {
				require.Contains(t, anchors(string(content)), anchor, "%s links to %s", file, m[1])
			}
		}
	})
}

// anchors returns the names that headings have in a rendered document.
func anchors(text string) []string {
	var names []string
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ' || r == '-':
				return '-'
			case r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r > 127:
				return r
			default:
				return -1
			}
		}, strings.ToLower(m[1]))
		names = append(names, name)
	}
	return names
}

// TestDocumentedCommandsExist: a `make` target named in a document is one of the Makefile's.
func TestDocumentedCommandsExist(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "docs/benchmarks.md"} {
		data, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		code := strings.Join(append(fenced.FindAllString(string(data), -1), inline.FindAllString(string(data), -1)...), "\n")
		for _, m := range target.FindAllStringSubmatch(code, -1) {
			require.Regexp(t, `(?m)^`+m[1]+`:`, string(makefile), "%s says `make %s`", name, m[1])
		}
	}
}
