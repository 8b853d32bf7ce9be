// Package cli runs a tree of commands on the flag package of the standard library: usage with an example at every
// level, exit codes that scripts can rely on, and progress of long work. It knows no command of its own and takes its
// outputs and environment from the caller, so that a test runs a command as a shell would. Read cmd/duramenctl next,
// which holds the table of commands.
package cli
