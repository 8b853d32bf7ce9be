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
	"github.com/duramendb/duramen/compactor"
	"github.com/duramendb/duramen/compactor/plan"
	"github.com/duramendb/duramen/internal/cli"
)

// planOfServer prints what the compactor at s.url has to do for a tenant.
func (s *settings) planOfServer(ctx context.Context, env cli.Env, tenantID string) error {
	server := cli.Server{URL: s.url, Access: s.access}
	if err := server.Validate(); err != nil {
		return err
	}
	client, err := ask.New(server)
	if err != nil {
		return err
	}
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
	var t compactor.TenantStatus
	if err := json.Unmarshal(page.Tenants[0], &t); err != nil {
		return fmt.Errorf("%s/compactor: %w", server.URL, err)
	}
	return writeTenant(env.Stdout, &t)
}

// writeTenant writes for people what a compactor says of a tenant.
func writeTenant(w io.Writer, t *compactor.TenantStatus) error {
	var b strings.Builder
	fmt.Fprintf(&b, "tenant %s, version %d of its manifest: %d blocks, looked at %s\n", t.Tenant, t.Version, t.Blocks, date(t.LastLook))
	if t.UncompactedSlots == 0 {
		b.WriteString("nothing waits\n")
	} else {
		age := time.Duration(t.OldestUncompactedSlotAge * float64(time.Second))
		fmt.Fprintf(&b, "%d waiting, the oldest for %v\n", t.UncompactedSlots, age.Round(time.Minute))
	}
	if t.Deleting {
		b.WriteString("the tenant is being deleted\n")
	}
	if t.PendingDeletions > 0 {
		fmt.Fprintf(&b, "deletions that are not worked into all blocks yet: %d\n", t.PendingDeletions)
	}
	if t.LastError != "" {
		fmt.Fprintf(&b, "last error: %s\n", t.LastError)
	}
	if err := plan.WriteSkips(&b, t.Skips); err != nil {
		return err
	}
	running := map[string]*compactor.RunningJob{}
	for i := range t.Running {
		running[t.Running[i].ID] = &t.Running[i]
	}
	if t.JobsTotal == 0 {
		b.WriteString("\nno jobs\n")
	} else {
		fmt.Fprintf(&b, "\njobs, in their order, %d of %d:\n", len(t.Jobs), t.JobsTotal)
	}
	for i := range t.Jobs {
		j := &t.Jobs[i]
		fmt.Fprintf(&b, "  %s, %s to %s, %d blocks, %s: %s\n", j.Kind, date(j.MinTime), date(j.MaxTime), j.Inputs, cli.Bytes(j.Bytes), j.Reason)
		if r, runs := running[j.ID]; runs {
			fmt.Fprintf(&b, "    runs since %s, %s: %s of %s read, %s written\n", date(r.Began), r.Progress.Phase,
				cli.Bytes(r.Progress.BytesRead), cli.Bytes(r.Progress.BytesTotal), cli.Bytes(r.Progress.BytesWritten))
		}
		if j.Failures > 0 {
			fmt.Fprintf(&b, "    failed %d times, again at %s: %s\n", j.Failures, date(j.Again), j.LastError)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
