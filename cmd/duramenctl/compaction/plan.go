package compaction

import (
	"context"
	"encoding/json"
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
with "!" where somebody has to look. Jobs that a running compactor has put off after an error are shown as if it had not;
its page /compactor knows.

` + store.Help + `

Exit codes: 0 shown; 1 the bucket cannot be read, or has no such tenant; 2 wrong usage; 3 the manifest is damaged.`,
		Example: `duramenctl plan -bucket=./data/bucket team-a
duramenctl plan -bucket=./data/bucket -at=+3h -retention=8760h team-a
duramenctl plan -config=duramen.yaml -format=json team-a`,
		Flags: s.registerFlags,
		Run: func(ctx context.Context, env cli.Env, args []string) error {
			tenantID, at, err := s.arguments(args, time.Now())
			if err != nil {
				return err
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
