package fanout

import (
	"context"
	"fmt"
	"strings"

	"github.com/duramendb/duramen/internal/errkind"
)

// Suspects returns the ingesters that were away or slow when this process last asked them.
func (f *Fanout) Suspects() []Suspect { return f.health.list(f.rings.Ring().ReadZones()) }

// Check says whether a query of now would find a quorum, as far as is known without asking: the error names who is away.
func (f *Fanout) Check(context.Context) error {
	r := f.rings.Ring()
	var gone []string
	missing := map[string]bool{}
	for _, z := range r.ReadZones() {
		for i := range z.Members {
			m := &z.Members[i]
			switch {
			case !r.Alive(*m, f.now()):
				gone = append(gone, fmt.Sprintf("ingester %s of zone %s is silent", m.ID, z.Name))
			case f.health.suspect(m):
				gone = append(gone, fmt.Sprintf("ingester %s of zone %s does not answer in time", m.ID, z.Name))
			default:
				continue
			}
			missing[z.Name] = true
		}
	}
	if len(missing) <= r.MayMiss() {
		return nil
	}
	if len(gone) == 0 {
		gone = []string{fmt.Sprintf("the ring knows of %d of %d zones", len(r.ReadZones()), r.RF())}
	}
	return errkind.New(errkind.Unavailable, "queries find no quorum of ingesters: %s", strings.Join(gone, "; "))
}
