// Command duramen runs the roles of Duramen, all of them in one process unless told otherwise. It owns nothing but the
// order parse, build, run, wait. Read app/wiring.go next for what is built and started.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/duramendb/duramen/chunkstore/budget"
	"github.com/duramendb/duramen/cmd/duramen/app"
)

// Exit codes. A supervisor should restart after exitFailed and not after exitUsage.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run()) }

func run() int {
	cmd, err := app.Parse(os.Args[1:], os.Environ())
	if err != nil {
		fmt.Fprintf(os.Stderr, "duramen: wrong settings:\n%v\n", err)
		return exitUsage
	}
	if cmd.Action != app.Run {
		if err := app.Answer(cmd, os.Stdout); err != nil {
			fmt.Fprintf(os.Stderr, "duramen: %v\n", err)
			return exitUsage
		}
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer context.AfterFunc(ctx, stop)() // a second signal kills
	a, err := app.New(cmd.Config, os.Stderr)
	if limit, ok := budget.SoftLimit(); ok {
		debug.SetMemoryLimit(limit) // after New, which takes its budgets from the limit of the container
	}
	if err == nil {
		err = a.Run(ctx)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "duramen: %v\n", err)
		return exitFailed
	}
	return 0
}
