package cli

import (
	"errors"
	"fmt"
)

// Exit codes of every command.
const (
	// ExitDone: the work is done and what it found is right.
	ExitDone = 0
	// ExitFailed: the work could not be done, because a server is away, a file cannot be read or the user stopped it.
	ExitFailed = 1
	// ExitUsage: the command line is wrong. Nothing was done.
	ExitUsage = 2
	// ExitWrong: the work is done, and what it looked at is wrong, such as samples that miss or a bad block.
	ExitWrong = 3
)

// ErrWrong marks the error of a command that did all its work and found something wrong. Main answers ExitWrong.
var ErrWrong = errors.New("something is wrong")

// ErrUsage marks the error of a command line that cannot be followed. Main answers ExitUsage and names the help.
var ErrUsage = errors.New("wrong usage")

// marked is an error with one of the marks above. Its text is the error's own.
type marked struct{ err, mark error }

func (m marked) Error() string   { return m.err.Error() }
func (m marked) Unwrap() []error { return []error{m.err, m.mark} }

// Wrong marks err with ErrWrong. Wrong(nil) is nil.
func Wrong(err error) error {
	if err == nil {
		return nil
	}
	return marked{err, ErrWrong}
}

// Usagef returns an error marked with ErrUsage.
func Usagef(format string, args ...any) error {
	return marked{fmt.Errorf(format, args...), ErrUsage}
}

// exitCode maps the error of a command to the code that the process ends with.
func exitCode(err error) int {
	switch {
	case err == nil:
		return ExitDone
	case errors.Is(err, ErrUsage):
		return ExitUsage
	case errors.Is(err, ErrWrong):
		return ExitWrong
	default:
		return ExitFailed
	}
}
