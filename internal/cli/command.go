package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/duramendb/duramen/internal/strictyaml"
)

// Command is one node of the tree: a group with Commands and no Run, or a leaf with Run.
type Command struct {
	Name    string // one word
	Args    string // what follows the name, such as "[flags] EXPR"
	Summary string // one line without a period
	Long    string // optional: what is worth knowing, in paragraphs
	Example string // at least one line that can be pasted

	// Flags registers the command's flags on a fresh set, with defaults that hold when a flag is not given.
	Flags func(f *flag.FlagSet)
	// Run does the work. It returns when ctx ends. args are the arguments that are no flags.
	Run func(ctx context.Context, env Env, args []string) error

	Commands []Command
}

// Env is what a command may use of the process around it.
type Env struct {
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Terminal       bool // Stderr is a terminal
}

// Main runs the command that args name, below root, and returns the exit code. An error is written to env.Stderr.
func Main(ctx context.Context, root Command, args []string, env Env) int {
	return run(ctx, root, root.Name, args, env)
}

func run(ctx context.Context, c Command, path string, args []string, env Env) int {
	if c.Run == nil {
		return runGroup(ctx, c, path, args, env)
	}
	f := flagSet(c)
	rest, err := parse(f, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		writeHelp(env.Stdout, c, path, f)
		return ExitDone
	case err != nil:
		err = marked{err, ErrUsage}
	default:
		err = c.Run(ctx, env, rest)
	}
	return report(env, path, err)
}

// report writes the error of a command for the user and returns its exit code.
func report(env Env, path string, err error) int {
	code := exitCode(err)
	if err != nil {
		fmt.Fprintf(env.Stderr, "%s: %v\n", path, err)
	}
	if code == ExitUsage {
		fmt.Fprintf(env.Stderr, "Run %q for help.\n", path+" -h")
	}
	return code
}

// runGroup runs the command that the first argument names.
func runGroup(ctx context.Context, c Command, path string, args []string, env Env) int {
	if len(args) == 0 {
		writeHelp(env.Stderr, c, path, nil)
		return ExitUsage
	}
	name := args[0]
	if isHelp(name) {
		return runHelp(c, path, args[1:], env)
	}
	if next, ok := c.find(name); ok {
		return run(ctx, next, path+" "+name, args[1:], env)
	}
	return report(env, path, c.unknown(name))
}

// runHelp writes the help of the command that names lead to.
func runHelp(c Command, path string, names []string, env Env) int {
	for _, name := range names {
		next, ok := c.find(name)
		if !ok {
			return report(env, path, c.unknown(name))
		}
		c, path = next, path+" "+name
	}
	writeHelp(env.Stdout, c, path, flagSet(c))
	return ExitDone
}

func isHelp(arg string) bool {
	switch arg {
	case "help", "-h", "--h", "-help", "--help":
		return true
	}
	return false
}

func (c Command) find(name string) (Command, bool) {
	for _, next := range c.Commands {
		if next.Name == name {
			return next, true
		}
	}
	return Command{}, false
}

// unknown is the error for a name that is none of c's commands, with the nearest one as a hint.
func (c Command) unknown(name string) error {
	if strings.HasPrefix(name, "-") {
		return Usagef("flag %s stands before the command", name)
	}
	names := make([]string, len(c.Commands))
	for i := range c.Commands {
		names[i] = c.Commands[i].Name
	}
	if near := strictyaml.Nearest(name, names); near != "" {
		return Usagef("unknown command %q: did you mean %q?", name, near)
	}
	return Usagef("unknown command %q", name)
}

// flagSet returns a fresh set with the command's flags that writes nothing by itself.
func flagSet(c Command) *flag.FlagSet {
	f := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	if c.Flags != nil {
		c.Flags(f)
	}
	return f
}

// parse sets the flags that args give and returns the other arguments. Unlike flag.Parse it takes flags behind
// arguments too; what follows "--" is never a flag.
func parse(f *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := f.Parse(args); err != nil {
			return nil, err
		}
		left := f.Args()
		if ended := len(left) < len(args) && args[len(args)-len(left)-1] == "--"; ended || len(left) == 0 {
			return append(rest, left...), nil
		}
		rest, args = append(rest, left[0]), left[1:]
	}
}
