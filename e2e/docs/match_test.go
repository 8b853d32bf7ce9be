package docs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMatchJSON(t *testing.T) {
	for _, tt := range []struct {
		want, got string
		equal     bool
	}{
		{`{"a":[1795237267.601,"1"]}`, `{"a":[1895237267,"1"]}`, true},
		{`{"a":[1795237267.601,"1"]}`, `{"a":[1895237267,"2"]}`, false},
		{`{"a":[2]}`, `{"a":[3]}`, false},
		{`{"a":["…"]}`, `{"a":[]}`, true},
		{`{"a":["…"]}`, `{"a":[1,2]}`, true},
		{`{"a":["…","2"]}`, `{"a":[17,"2"]}`, true},
		{`{"a":["…","2"]}`, `{"a":[17,"3"]}`, false},
		{`{"a":1}`, `{"a":1,"b":2}`, false},
		{`{"a":1,"…":"…"}`, `{"a":1,"b":2}`, true},
		{`{"a":1}`, `{}`, false},
		{`{"b":"01KAH2V5X4S3P8Y4QW4Q5B6Z7C"}`, `{"b":"01KBJ2V5X4S3P8Y4QW4Q5B6Z7C"}`, true},
		{`{"b":"01KAH2V5X4S3P8Y4QW4Q5B6Z7C"}`, `{"b":"x"}`, false},
		{`{"b":"at …, ok"}`, `{"b":"at 12, ok"}`, true},
		{`{"b":null}`, `{"b":1}`, false},
		{`{"a":1`, `{}`, false},
		{`{}`, `no JSON`, false},
	} {
		require.Equal(t, tt.equal, matchJSON(tt.want, tt.got) == "", "%s %s: %s", tt.want, tt.got, matchJSON(tt.want, tt.got))
	}
}

func TestMatchText(t *testing.T) {
	for _, tt := range []struct {
		want, got string
		equal     bool
	}{
		{"400\n", "400", true},
		{"a …\nb\n", "a (1)\nb\n", true},
		{"a …\nb\n", "a\nc\n", false},
		{"a\n…\nz\n", "a\nb\nc\nz\n", true},
		{"a\n…\nz\n", "a\nb\nc\n", false},
		{"a\n", "a\nb\n", false},
	} {
		require.Equal(t, tt.equal, matchText(tt.want, tt.got) == "", "%q %q", tt.want, tt.got)
	}
}

func TestReadPage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	write := func(text string) (*page, error) {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		return readPage(path, "page.md")
	}
	p, err := write("<!-- seeded: team-a up{job=\"node\"} 1 -->\n\n```sh\necho 1\n```\n\n<!-- not compared: why -->\n```json\n1\n```\n" +
		"Text.\n<!-- not run: it kills -->\n```sh\nkill\n```\n<!-- other -->\n")
	require.NoError(t, err)
	require.Equal(t, []seed{{"team-a", `up{job="node"}`, "1"}}, p.seeds)
	require.Equal(t, []block{
		{line: 3, language: "sh", text: "echo 1\n"},
		{line: 8, language: "json", text: "1\n", notCompared: "why", follows: true},
		{line: 13, language: "sh", text: "kill\n", notRun: "it kills"},
	}, p.blocks)
	for _, wrong := range []string{
		"```sh\n", "<!-- not run -->\n", "<!-- seeded: x -->\n", "<!-- not run: why -->\ntext\n```sh\n```\n",
	} {
		_, err := write(wrong)
		require.Error(t, err, wrong)
	}
}
