package reconcile

import (
	"fmt"
	"maps"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// foreignQuiet is for how long after it was last seen to delete somebody else counts as at work: peers look for work every
// few minutes to an hour, and a tenant has some every two hours.
const foreignQuiet = 24 * time.Hour

// foreignDeletion is a deletion, by somebody else, of a listed block that one of our programs has written.
type foreignDeletion struct {
	// since is when the block was marked, or when it was missed first.
	since time.Time
	what  string
}

// ours reports whether a program of ours has written the block. Nobody else may delete it: what is marked by us has left
// the manifest before.
func ours(b *manifest.Block) bool { return b.Writer != "" }

// noteForeign notes that somebody deletes a listed block of ours.
func (p *plan) noteForeign(s *situation, b *manifest.Block, marked time.Time, gone bool) {
	d := foreignDeletion{marked, fmt.Sprintf("it bears %s since %s, which no program of ours has written",
		deletionMarkName, marked.UTC().Format(time.RFC3339))}
	if gone {
		if s.goneSince[b.ULID].IsZero() {
			return // damage, as far as this process can tell
		}
		d = foreignDeletion{s.goneSince[b.ULID], "its meta.json is gone, which peers delete first"}
	}
	s.old(d.since, foreignQuiet) // for the pass that sees its end
	p.foreign[b.ULID] = d
}

// Foreign returns the listed blocks of ours that somebody else has marked for deletion or deleted within the last 24 hours,
// and what was seen, as of the last pass: nothing may be merged meanwhile. The blocks stay listed.
func (r *Reconciler) Foreign(tenantID string) map[ulid.ULID]string {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tenants[tenantID]
	if t == nil || len(t.foreign) == 0 {
		return nil
	}
	found := map[ulid.ULID]string{}
	for id, d := range t.foreign {
		if now.Sub(d.since) < foreignQuiet {
			found[id] = d.what
		}
	}
	return found
}

// noteForeign takes over what a pass has found, and says what is new. The caller holds r.mu.
func (r *Reconciler) noteForeign(tenantID string, t *tenantState, found map[ulid.ULID]foreignDeletion) {
	n := 0
	for id, d := range found {
		if _, known := t.foreign[id]; known {
			continue
		}
		if n++; n <= mostNamed {
			r.log.Error("somebody else deletes a listed block, nothing of the tenant is compacted meanwhile",
				"tenant", tenantID, "block", id, "what", d.what)
		}
	}
	t.foreign = maps.Clone(found)
}
