package cli

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

// writeHelp writes what -h shows of a command. f is nil or holds the command's flags with their defaults.
func writeHelp(w io.Writer, c Command, path string, f *flag.FlagSet) {
	fmt.Fprintf(w, "%s: %s\n\nUsage:\n  %s\n", path, c.Summary, strings.TrimSpace(path+" "+c.usage()))
	if c.Long != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(c.Long))
	}
	if len(c.Commands) > 0 {
		fmt.Fprint(w, "\nCommands:\n")
		width := 0
		for _, next := range c.Commands {
			width = max(width, len(next.Name))
		}
		for _, next := range c.Commands {
			fmt.Fprintf(w, "  %-*s  %s\n", width, next.Name, next.Summary)
		}
		fmt.Fprintf(w, "\nRun %q for the help of one.\n", path+" COMMAND -h")
	}
	if c.Example != "" {
		fmt.Fprintf(w, "\nExample:\n%s\n", indent(c.Example))
	}
	if f != nil {
		writeFlags(w, f)
	}
}

func (c Command) usage() string {
	if c.Args == "" && len(c.Commands) > 0 {
		return "COMMAND [flags]"
	}
	return c.Args
}

func writeFlags(w io.Writer, f *flag.FlagSet) {
	title := "\nFlags:\n"
	f.VisitAll(func(fl *flag.Flag) {
		name, usage := flag.UnquoteUsage(fl)
		if name != "" {
			name = " " + name
		}
		if fl.DefValue != "" && fl.DefValue != "false" {
			usage += fmt.Sprintf(" (default %s)", fl.DefValue)
		}
		fmt.Fprintf(w, "%s  -%s%s\n        %s\n", title, fl.Name, name, strings.ReplaceAll(usage, "\n", "\n        "))
		title = ""
	})
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.Trim(text, "\n"), "\n", "\n  ")
}
