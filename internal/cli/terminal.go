package cli

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// defaultWidth is used where nobody knows the width: the classic terminal.
const defaultWidth = 80

// ProcessEnv is the environment of this process.
func ProcessEnv() Env {
	return Env{Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Terminal: columns(os.Stderr) > 0}
}

// Width returns the columns of the terminal that Stdout, else Stderr, is; else $COLUMNS; else 80.
func (e Env) Width() int {
	for _, w := range []any{e.Stdout, e.Stderr} {
		if f, ok := w.(*os.File); ok {
			if n := columns(f); n > 0 {
				return n
			}
		}
	}
	if n, err := strconv.Atoi(e.Getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	return defaultWidth
}

// columns returns the width of the terminal that f is, or 0. A terminal that does not know its width has the default.
func columns(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	if size.Col == 0 {
		return defaultWidth
	}
	return int(size.Col)
}

// Coloured reports whether Stdout is a terminal that shows colours and the user has not said otherwise with $NO_COLOR.
func (e Env) Coloured() bool {
	f, ok := e.Stdout.(*os.File)
	return ok && columns(f) > 0 && e.Getenv("NO_COLOR") == "" && e.Getenv("TERM") != "dumb"
}
