package compaction

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/duramendb/duramen/cmd/duramenctl/ask"
	"github.com/duramendb/duramen/compactor/plan"
	"github.com/duramendb/duramen/internal/cli"
)

// serverPlan is what a running compactor says of a tenant: its plan, with what became of jobs that failed or run.
type serverPlan struct {
	Tenant      string  `json:"tenant"`
	Version     uint64  `json:"version"`
	Blocks      int     `json:"blocks"`
	Deleting    bool    `json:"deleting"`
	Uncompacted int     `json:"uncompacted_slots"`
	Age         float64 `json:"oldest_uncompacted_slot_age_seconds"`
	Jobs        []struct {
		ID        string    `json:"id"`
		Kind      plan.Kind `json:"kind"`
		Reason    string    `json:"reason"`
		MinTime   int64     `json:"min_time"`
		MaxTime   int64     `json:"max_time"`
		Inputs    int       `json:"inputs"`
		Bytes     int64     `json:"bytes"`
		Failures  int       `json:"failures"`
		Again     int64     `json:"again"`
		LastError string    `json:"last_error"`
	} `json:"jobs"`
	JobsTotal int `json:"jobs_total"`
	Running   []struct {
		ID    string `json:"id"`
		Began int64  `json:"began"`
	} `json:"running"`
	Skips     []plan.Skip `json:"skips"`
	LastLook  int64       `json:"last_look"`
	LastError string      `json:"last_error"`
}

// planOfServer prints what the compactor at s.url has to do for a tenant.
func (s *settings) planOfServer(ctx context.Context, env cli.Env, tenantID string) error {
	server := cli.Server{URL: s.url}
	if err := server.Validate(); err != nil {
		return err
	}
	client := ask.New(server)
	defer client.Close()
	a, err := client.Get(ctx, "/compactor?format=json&tenant="+url.QueryEscape(tenantID))
	if err != nil {
		return err
	}
	if a.Status != http.StatusOK {
		return fmt.Errorf("%s/compactor: status %d: %s", server.URL, a.Status, strings.TrimSpace(string(a.Body)))
	}
	var page struct {
		Tenants []json.RawMessage `json:"tenants"`
	}
	if err := json.Unmarshal(a.Body, &page); err != nil {
		return fmt.Errorf("%s/compactor: %w", server.URL, err)
	}
	if len(page.Tenants) == 0 {
		return fmt.Errorf("the compactor at %s does not look after tenant %s: another one does, or the tenant has no blocks",
			server.URL, tenantID)
	}
	if s.format == "json" {
		_, err := fmt.Fprintf(env.Stdout, "%s\n", page.Tenants[0])
		return err
	}
	var p serverPlan
	if err := json.Unmarshal(page.Tenants[0], &p); err != nil {
		return fmt.Errorf("%s/compactor: %w", server.URL, err)
	}
	return p.write(env.Stdout)
}

func (p *serverPlan) write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "tenant %s, version %d of its manifest: %d blocks, looked at %s\n", p.Tenant, p.Version, p.Blocks, date(p.LastLook))
	if p.Uncompacted == 0 {
		b.WriteString("nothing waits\n")
	} else {
		age := time.Duration(p.Age * float64(time.Second))
		fmt.Fprintf(&b, "%d waiting, the oldest for %v\n", p.Uncompacted, age.Round(time.Minute))
	}
	if p.Deleting {
		b.WriteString("the tenant is being deleted\n")
	}
	if p.LastError != "" {
		fmt.Fprintf(&b, "last error: %s\n", p.LastError)
	}
	if err := plan.WriteSkips(&b, p.Skips); err != nil {
		return err
	}
	running := map[string]int64{}
	for _, r := range p.Running {
		running[r.ID] = r.Began
	}
	if p.JobsTotal == 0 {
		b.WriteString("\nno jobs\n")
	} else {
		fmt.Fprintf(&b, "\njobs, in their order, %d of %d:\n", len(p.Jobs), p.JobsTotal)
	}
	for i := range p.Jobs {
		j := &p.Jobs[i]
		fmt.Fprintf(&b, "  %s, %s to %s, %d blocks, %s: %s\n", j.Kind, date(j.MinTime), date(j.MaxTime), j.Inputs, cli.Bytes(j.Bytes), j.Reason)
		if began, runs := running[j.ID]; runs {
			fmt.Fprintf(&b, "    runs since %s\n", date(began))
		}
		if j.Failures > 0 {
			fmt.Fprintf(&b, "    failed %d times, again at %s: %s\n", j.Failures, date(j.Again), j.LastError)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
