// Command duramenctl is the operator's tool: it asks a server, looks into a bucket, copies and checks what is there. It
// holds no more than the table of commands and the signals; each command is a package below this one. Read README.md
// here next for an example of each.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/duramendb/duramen/cmd/duramenctl/blocks"
	"github.com/duramendb/duramen/cmd/duramenctl/bucket"
	"github.com/duramendb/duramen/cmd/duramenctl/compaction"
	"github.com/duramendb/duramen/cmd/duramenctl/load"
	"github.com/duramendb/duramen/cmd/duramenctl/manifest"
	"github.com/duramendb/duramen/cmd/duramenctl/query"
	"github.com/duramendb/duramen/cmd/duramenctl/salvage"
	"github.com/duramendb/duramen/cmd/duramenctl/tenants"
	"github.com/duramendb/duramen/cmd/duramenctl/verify"
	"github.com/duramendb/duramen/internal/buildinfo"
	"github.com/duramendb/duramen/internal/cli"
)

// root is the table of commands, in the order of the help.
func root() cli.Command {
	return cli.Command{
		Name:    "duramenctl",
		Summary: "ask, inspect, copy and check what Duramen stores",
		Long: `Exit codes: 0 done and right; 1 could not be done, such as a server that is away; 2 wrong usage;
3 done, and what was looked at is wrong.`,
		Example: "duramenctl query 'up'",
		Commands: []cli.Command{
			query.Command(),
			tenants.Command(),
			blocks.Command(),
			manifest.Command(),
			salvage.Command(),
			compaction.PlanCommand(),
			compaction.StatusCommand(),
			load.Command(),
			verify.Command(),
			bucket.Command(),
			version(),
		},
	}
}

func version() cli.Command {
	return cli.Command{
		Name: "version", Summary: "print the version", Example: "duramenctl version",
		Run: func(_ context.Context, env cli.Env, args []string) error {
			if len(args) > 0 {
				return cli.Usagef("no arguments are taken")
			}
			_, err := fmt.Fprintln(env.Stdout, buildinfo.Read().Line("duramenctl"))
			return err
		},
	}
}

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer context.AfterFunc(ctx, stop)() // a second signal kills
	return cli.Main(ctx, root(), os.Args[1:], cli.ProcessEnv())
}
