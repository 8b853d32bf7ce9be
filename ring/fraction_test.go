package ring

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFractionsOfATenant(t *testing.T) {
	for _, c := range []struct {
		zones, each, shard int
		want               float64
	}{
		{zones: 3, each: 1, want: 1},
		{zones: 3, each: 4, want: 1. / 4},
		{zones: 3, each: 4, shard: 6, want: 1. / 2},
		{zones: 5, each: 2, want: 3. / 5 / 2},
		{zones: 2, each: 2, want: 1. / 2},
	} {
		var entries []Entry
		for z := range c.zones {
			for i := range c.each {
				entries = append(entries, MemberEntry(Member{
					ID: fmt.Sprintf("i-%d-%d", z, i), Zone: fmt.Sprint("z", z), Ordinal: i, Roles: []Role{RoleIngester},
					State: Active, Epoch: 1, Counter: 1,
				}))
			}
		}
		drained := Member{ID: "drained", Zone: "z0", Ordinal: 9, Roles: []Role{RoleIngester}, State: ReadOnly, Epoch: 1, Counter: 1}
		p := New(Config{ReplicationFactor: 3}, append(entries, MemberEntry(drained)), time.UnixMilli(0)).Tenant("a", c.shard)
		sum := 0.
		for _, m := range p.Ingesters() {
			f := p.Fraction(m.ID)
			if f < 1 || c.each == 1 && m.ID != drained.ID {
				require.InDelta(t, c.want, f, 1e-9, "%v", c)
				sum += f
			}
		}
		require.InDelta(t, float64(min(3, c.zones)), sum, 1e-9, "together they hold each series once for each copy: %v", c)
		require.EqualValues(t, 1, p.Fraction(drained.ID))
	}
}
