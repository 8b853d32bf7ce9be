package duramenpb

// View is what a query pinned before it reads recent data: the long-term store answers t < Cut from manifest Version,
// so the ingester owes everything with t ≥ Cut and, at any t, what Version does not list.
type View struct {
	// Version is the pinned manifest version; 0 means that none could be had, and the ingester owes everything.
	Version uint64
	// Cut is in milliseconds since the Unix epoch.
	Cut int64
}

// Held is what an ingester says beside its answer, so that the query knows whether its View still fits.
type Held struct {
	// Floor: the ingester still holds everything that it accepted with t ≥ Floor (milliseconds since the Unix epoch).
	Floor int64
	// DeletedVersion is the highest manifest version that lists a block which the ingester has deleted locally.
	DeletedVersion uint64
}

// Fits reports whether an answer given with h completes view for a query that begins at mint. When it does not, the
// query has to plan again on a fresh manifest with a higher cut.
func (h Held) Fits(view View, mint int64) bool {
	if mint >= view.Cut {
		return h.Floor <= mint
	}
	return h.Floor <= view.Cut && h.DeletedVersion <= view.Version
}
