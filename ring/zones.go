package ring

import (
	"fmt"
	"strconv"
)

// virtualPrefix begins the names of zones that nobody configured.
const virtualPrefix = "virtual-"

// zoneOf is the zone that counts: the configured one, or else one that the ordinal decides, so that consecutive
// instances are in different zones. "" is none: no zone is configured and no ordinal claimed.
func zoneOf(cfg Config, m *Member) string {
	if m.Zone != "" {
		return m.Zone
	}
	if m.Ordinal < 0 {
		return ""
	}
	return virtualPrefix + strconv.Itoa(m.Ordinal%cfg.ReplicationFactor)
}

// placeOf is the number within the zone that decides what the member holds. Members of virtual zones are numbered as if
// each zone had counted for itself.
func placeOf(cfg Config, m *Member) int {
	if m.Zone != "" || m.Ordinal < 0 {
		return m.Ordinal
	}
	return m.Ordinal / cfg.ReplicationFactor
}

// ZoneOf is the zone that counts for a member; "" while it has none.
func (r *Ring) ZoneOf(m Member) string { return zoneOf(r.cfg, &m) }

// describe names a member for an error or a page.
func describe(m *Member) string { return fmt.Sprintf("%s (%s)", m.ID, m.State) }
