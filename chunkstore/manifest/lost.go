package manifest

import (
	"context"
	"fmt"
	"slices"

	"github.com/duramendb/duramen/internal/errkind"
)

// Lost records that accepted samples of the range are gone, so that queries can say so. Recording a range again, or a
// part of one with the same reason, changes nothing; ranges of one reason that overlap or touch become one. Errors are
// as for Add.
func (o *Owner) Lost(ctx context.Context, tenantID string, l LostRange) error {
	if l.MinTime >= l.MaxTime {
		return errkind.New(errkind.Invalid, "record loss of tenant %s: range from %d to %d is empty",
			tenantID, l.MinTime, l.MaxTime)
	}
	if _, err := o.submit(ctx, tenantID, loss(l)); err != nil {
		return fmt.Errorf("record loss in manifest of tenant %s: %w", tenantID, err)
	}
	return nil
}

// LostIn returns the ranges that touch mint ≤ t ≤ maxt, both inclusive, in the order of the manifest.
func (m *Manifest) LostIn(mint, maxt int64) []LostRange {
	var found []LostRange
	for _, l := range m.Lost {
		if l.MinTime <= maxt && mint < l.MaxTime {
			found = append(found, l)
		}
	}
	return found
}

type loss LostRange

func (e loss) apply(d *draft) (Added, error) {
	whole := LostRange(e)
	var others []LostRange
	for _, l := range d.next.Lost {
		switch {
		case l.Reason != e.Reason || l.MinTime > e.MaxTime || l.MaxTime < e.MinTime:
			others = append(others, l)
		case l.MinTime <= e.MinTime && e.MaxTime <= l.MaxTime:
			return Added{Version: d.version()}, nil
		default:
			whole.MinTime, whole.MaxTime = min(whole.MinTime, l.MinTime), max(whole.MaxTime, l.MaxTime)
		}
	}
	d.next.Lost = append(others, whole)
	slices.SortFunc(d.next.Lost, compareLost)
	d.changed = true
	return Added{Version: d.next.Version}, nil
}
