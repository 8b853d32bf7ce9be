package compaction

import (
	"context"
	"encoding/json"
	"flag"
	"time"

	"github.com/duramendb/duramen/cmd/duramenctl/store"
	"github.com/duramendb/duramen/compactor/plan"
	"github.com/duramendb/duramen/internal/cli"
)

// PlanCommand returns the command that prints the plan for a tenant.
func PlanCommand() cli.Command {
	var s settings
	return cli.Command{
		Name: "plan", Args: "[flags] TENANT", Summary: "show what the compactor has to do for a tenant, and what it leaves alone and why",
		Long: `The plan follows from the newest manifest in the bucket, the time and the flags, which stand for what a running compactor
knows from its settings and from the ring. Nothing is changed, and nothing is asked of a server. What is left alone is marked
with "!" where somebody has to look.

With -url the running compactor is asked instead. It knows as well which jobs run, and which failed and when they are tried
again; the other flags but -format do nothing then.

` + store.Help + `

Exit codes: 0 shown; 1 the bucket or the server cannot be asked, or has no such tenant; 2 wrong usage; 3 the manifest is damaged.`,
		Example: `duramenctl plan -bucket=./data/bucket team-a
duramenctl plan -bucket=./data/bucket -at=+3h -retention=8760h team-a
duramenctl plan -config=duramen.yaml -format=json team-a
duramenctl plan -url=http://localhost:9009 team-a`,
		Flags: func(f *flag.FlagSet) {
			s.registerFlags(f)
			f.StringVar(&s.url, "url", "", "Ask the compactor that runs here, such as "+cli.DefaultURL+", instead of a bucket.")
			s.access.RegisterFlags(f)
		},
		Run: func(ctx context.Context, env cli.Env, args []string) error {
			tenantID, at, err := s.arguments(args, time.Now())
			if err != nil {
				return err
			}
			if s.url != "" {
				if s.bucket.Given() {
					return cli.Usagef("-url asks a server: leave out -bucket and -config")
				}
				return s.planOfServer(ctx, env, tenantID)
			}
			return s.with(ctx, env, tenantID, func(p *place) error {
				made := plan.Make(p.manifest, at, s.limits)
				if s.format == "json" {
					return json.NewEncoder(env.Stdout).Encode(made)
				}
				return made.Text(env.Stdout)
			})
		},
	}
}
