package main

import (
	"context"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/cli"
)

var fenced = regexp.MustCompile("(?ms)^```sh\n(.*?)^```")

// substitution is $(command), in whose place the output of the command stands.
var substitution = regexp.MustCompile(`\$\([^)]*\)`)

// TestExamplesCanBePasted reads every example of the README and of -h: the command exists, and takes its flags.
func TestExamplesCanBePasted(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	var texts []string
	for _, m := range fenced.FindAllStringSubmatch(string(readme), -1) {
		texts = append(texts, m[1])
	}
	require.NotEmpty(t, texts)
	shown := strings.Join(texts, "\n")
	var walk func(c cli.Command, path string)
	walk = func(c cli.Command, path string) {
		texts = append(texts, c.Example)
		if c.Run != nil && path != "duramenctl version" {
			require.Contains(t, shown, path+" ", "README.md shows each command")
		}
		for _, next := range c.Commands {
			walk(next, path+" "+next.Name)
		}
	}
	walk(root(), "duramenctl")

	n := 0
	for _, text := range texts {
		for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
			_, call, ok := strings.Cut(line, "duramenctl ")
			if !ok {
				continue
			}
			args := words(substitution.ReplaceAllString(call, "1"))
			ran := false
			var errs strings.Builder
			code := cli.Main(t.Context(), without(root(), &ran), args, cli.Env{Stdout: io.Discard, Stderr: &errs})
			require.Equal(t, cli.ExitDone, code, "%s: %s", line, errs.String())
			require.True(t, ran, line)
			n++
		}
	}
	require.Greater(t, n, 30)
}

// without is a tree whose commands do nothing but to say that they were called.
func without(c cli.Command, ran *bool) cli.Command {
	if c.Run != nil {
		c.Run = func(context.Context, cli.Env, []string) error {
			*ran = true
			return nil
		}
	}
	commands := c.Commands
	c.Commands = nil
	for _, next := range commands {
		c.Commands = append(c.Commands, without(next, ran))
	}
	return c
}

// words splits a line as a shell does, as far as the examples need it: single quotes, and an end at a comment, a pipe or a
// redirection.
func words(line string) (out []string) {
	var word strings.Builder
	quoted, began := false, false
	end := func() {
		if began {
			out = append(out, word.String())
		}
		word.Reset()
		began = false
	}
	for _, r := range line {
		switch {
		case r == '\'':
			quoted, began = !quoted, true
		case !quoted && (r == ' ' || r == '\n'):
			end()
		case !quoted && !began && (r == '#' || r == '|' || r == '>'):
			return out
		default:
			began = true
			word.WriteRune(r)
		}
	}
	end()
	return out
}
